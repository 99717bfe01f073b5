"""Options of architectures and the step."""

import re

import pytest

from collect.errors import UserError
from train_sae.options import Options, parse_options


def test_pairs_become_options() -> None:
    pairs = ["l1_coefficient=2", "matryoshka_widths=[4,16]", "clip_grad_norm=null", "jumprelu_ste_to_input=true"]
    expected = Options(l1_coefficient=2.0, matryoshka_widths=(4, 16), clip_grad_norm=None, jumprelu_ste_to_input=True)
    assert parse_options(pairs) == expected
    mode = parse_options(["jumprelu_sparsity_loss_mode=tanh", "normalize_activations=none", "l1_warm_up_steps=10"])
    assert (mode.jumprelu_sparsity_loss_mode, mode.normalize_activations, mode.l1_warm_up_steps) == ("tanh", "none", 10)
    assert parse_options([]) == Options()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("l1_coefficient", "is not NAME=VALUE with a known name: choose from normalize_activations"),
        ("l2_coefficient=1", "is not NAME=VALUE with a known name"),
        ("l1_coefficient=a", "has to be a number, true, false, null or a list"),
        ("l1_coefficient=true", "has to be a float"),
        ("l1_warm_up_steps=0.5", "has to be a int"),
        ("matryoshka_widths=[1.5]", "a list of whole numbers"),
        ("matryoshka_widths=[4,4]", "do not rise"),
        ("jumprelu_sparsity_loss_mode=l1", "choose one of step, tanh, quadratic"),
        ("ema_decay=1.0", "is not in [0, 1)"),
        ("adam_beta2=1.0", "is not in [0, 1)"),
        ("clip_grad_norm=0", "is not a positive number"),
        ("aux_loss_coefficient=-1", "is negative"),
    ],
)
def test_a_wrong_option_is_a_user_error(pair: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_options([pair])


def test_widths_end_with_the_dictionary() -> None:
    assert Options().widths(64) == (8, 16, 32, 64)
    assert Options().widths(3) == (1, 3)
    assert Options(matryoshka_widths=(4, 10)).widths(20) == (4, 10, 20)
    assert Options(matryoshka_widths=(4, 20)).widths(20) == (4, 20)
    with pytest.raises(UserError, match="exceed the 8 latents"):
        Options(matryoshka_widths=(4, 10)).check("matryoshka_batchtopk", 8)


def test_whitening_does_not_go_with_matching_pursuit() -> None:
    options = Options(normalize_activations="covariance_whitening")
    options.check("topk", 8)
    with pytest.raises(UserError, match="cannot be folded"):
        options.check("matching_pursuit", 8)
