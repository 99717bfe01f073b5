"""What stands behind `--options`."""

import re

import pytest

from collect.errors import UserError
from train_sae.options import LoopOptions, SaeOptions, parse_options


def test_pairs_become_options() -> None:
    pairs = ["l1_coefficient=2", "matryoshka_widths=[4,16]", "clip_grad_norm=null", "jumprelu_ste_to_input=true"]
    expected = SaeOptions(
        l1_coefficient=2.0, matryoshka_widths=(4, 16), clip_grad_norm=None, jumprelu_ste_to_input=True
    )
    assert parse_options(pairs).sae == expected
    mode = parse_options(["jumprelu_sparsity_loss_mode=tanh", "normalize_activations=none", "l1_warm_up_steps=10"]).sae
    assert (mode.jumprelu_sparsity_loss_mode, mode.normalize_activations, mode.l1_warm_up_steps) == ("tanh", "none", 10)
    assert parse_options([]) == (LoopOptions(), SaeOptions(), ())


def test_what_changes_the_outcome_is_kept_as_it_was_typed() -> None:
    pairs = [
        "l1_coefficient=2",
        "verify=false",
        "deterministic=true",
        "adam_beta1=0.90",
        "dead_tokens=7",
        "log_every=9",
    ]
    found = parse_options(pairs)
    assert found.loop == LoopOptions(verify=False, deterministic=True, dead_tokens=7, log_every=9)
    # Those of the loop in the order of its fields, then the others in the order of their names.
    assert found.effective() == ("dead_tokens=7", "deterministic=true", "adam_beta1=0.90", "l1_coefficient=2")
    # A default is nothing that was changed, even where it was typed.
    assert parse_options(["shard_latents=false", "dead_tokens=null"]).effective() == ()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("l1_coefficient", "is not NAME=VALUE with a known name: choose from dead_tokens"),
        ("l2_coefficient=1", "is not NAME=VALUE with a known name"),
        ("l1_coefficient=a", "the value has to be a number"),
        ("l1_coefficient=true", "the value has to be a number"),
        ("ema_decay=x", "the value has to be a number or null"),
        ("resident=1", "the value has to be true or false"),
        ("l1_warm_up_steps=0.5", "the value has to be a whole number"),
        ("matryoshka_widths=[1.5]", "a list of whole numbers"),
        ("matryoshka_widths=[4,4]", "do not rise"),
        ("jumprelu_sparsity_loss_mode=l1", "choose one of step, tanh, quadratic"),
        ("ema_decay=1.0", "is not in [0, 1)"),
        ("adam_beta2=1.0", "is not in [0, 1)"),
        ("clip_grad_norm=0", "is not a positive number"),
        ("aux_loss_coefficient=-1", "is out of range: give zero or more"),
        ("jumprelu_init_threshold=-1", "is out of range: give zero or more"),
        ("l0_warm_up_steps=-5", "is out of range: give zero or more"),
    ],
)
def test_a_wrong_option_is_a_user_error(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_options([pair])


def test_widths_end_with_the_dictionary() -> None:
    assert SaeOptions().widths(64) == (8, 16, 32, 64)
    assert SaeOptions().widths(3) == (1, 3)
    assert SaeOptions(matryoshka_widths=(4, 10)).widths(20) == (4, 10, 20)
    assert SaeOptions(matryoshka_widths=(4, 20)).widths(20) == (4, 20)
    with pytest.raises(UserError, match="exceed the 8 latents"):
        SaeOptions(matryoshka_widths=(4, 10)).widths(8)


def test_whitening_does_not_go_with_matching_pursuit() -> None:
    options = SaeOptions(normalize_activations="covariance_whitening")
    options.check("topk")
    with pytest.raises(UserError, match="cannot be folded"):
        options.check("matching_pursuit")
