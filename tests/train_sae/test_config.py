"""Arguments of the train stage."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collect.errors import UserError
from train_sae.config import SaeConfig, TrainConfig
from train_sae.options import LoopOptions, SaeOptions


def config(**arguments: object) -> TrainConfig:
    return TrainConfig(**{"run": Path("runs/a"), "site": "resid/12", **arguments})  # type: ignore[arg-type]


def only(**arguments: object) -> SaeConfig:
    (sae,) = config(**arguments).saes()
    return sae


def test_folder_is_named_after_site_and_architecture() -> None:
    assert config(arch=("batchtopk",), d_sae=(2048,), k=(16,)).folder == Path("runs/a/sae/resid_12-batchtopk-2048-k16")


def test_a_given_name_is_kept() -> None:
    assert config(name="first").folder == Path("runs/a/sae/first")


def test_a_sweep_has_every_combination_each_in_a_folder_of_its_own() -> None:
    swept = config(arch=("topk", "batchtopk"), d_sae=(64, 128), k=(4,), lr=(1e-3, 2e-4))
    assert [sae.name for sae in swept.saes()][:3] == [
        "resid_12-topk-64-k4-lr0.001",
        "resid_12-topk-64-k4-lr0.0002",
        "resid_12-topk-128-k4-lr0.001",
    ]
    assert len({sae.folder for sae in swept.saes()}) == 8
    named = config(name="wide", k=(4, 8)).saes()
    assert [sae.name for sae in named] == ["wide-batchtopk-32768-k4", "wide-batchtopk-32768-k8"]


def test_the_arguments_of_an_sae_train_it_alone_into_the_same_folder() -> None:
    for swept in (config(k=(4, 8)), config(k=(4, 8), name="wide"), config(lr=(1e-3, 1e-4)), config(name="one")):
        for sae in swept.saes():
            arguments = sae.arguments()
            single = {name: (arguments[name],) for name in ("arch", "d_sae", "k")}
            lr = () if arguments["lr"] is None else (arguments["lr"],)
            (alone,) = TrainConfig(**{**arguments, **single, "lr": lr}).saes()
            assert alone.folder == sae.folder
            assert alone.arguments() == arguments


def test_options_without_effect_are_no_part_of_the_arguments() -> None:
    options = ("verify=false", "dead_tokens=7", "checkpoint_every=3", "log_every=50")
    assert only(options=options).arguments()["options"] == ("dead_tokens=7",)
    assert config(options=options).parsed.loop == LoopOptions(dead_tokens=7, checkpoint_every=3, verify=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_sae": (0,), "k": (0,)}, "--d-sae 0 is too small"),
        ({"k": (0,)}, "--k 0 is too small"),
        ({"k": ()}, "--k has no value"),
        ({"k": (4, 4)}, "--k 4 4 names a value twice"),
        ({"d_sae": (8, 64), "k": (2, 9)}, "--k 9 is more than the 8 latents"),
        ({"batch_size": 0}, "--batch-size 0 is too small"),
        ({"epochs": 0.0}, "--epochs 0.0 is not a positive number"),
        ({"epochs": float("nan")}, "--epochs nan is not a positive number"),
        ({"seed": -1}, "--seed -1 is out of range"),
        ({"options": ("jumprelu_init_threshold=-1",)}, "jumprelu_init_threshold=-1.0 is out of range"),
        ({"options": ("jumprelu_init_threshold=NaN",)}, "jumprelu_init_threshold=nan is out of range"),
        ({"options": ("l0_warm_up_steps=-5",)}, "l0_warm_up_steps=-5 is out of range"),
        ({"options": ("l1_coefficient=Infinity",)}, "l1_coefficient=inf is out of range"),
        ({"lr": (-1.0,)}, "--lr -1.0 is not a positive number"),
        ({"options": ("checkpoint_every=0",)}, "checkpoint_every=0 is too small"),
        ({"options": ("dead_tokens=0",)}, "dead_tokens=0 is too small"),
        ({"options": ("dead_tokens=x",)}, "'dead_tokens=x': the value has to be a whole number"),
        ({"options": ("verify=no",)}, "'verify=no': the value has to be true or false"),
        ({"options": ("colour=red",)}, "'colour=red' is not NAME=VALUE with a known name"),
        ({"options": ("matryoshka_widths=[8,99]",), "d_sae": (64,), "k": (1,)}, "exceed the 64 latents"),
        (
            {"options": ("normalize_activations=covariance_whitening",), "arch": ("topk", "matching_pursuit")},
            "normalize_activations=covariance_whitening does not go with matching_pursuit",
        ),
        ({"tokens": ("frames",)}, "--tokens 'frames' is not a filter"),
        ({"name": "../other"}, "cannot name a folder"),
        ({"name": ""}, "cannot name a folder"),
    ],
)
def test_an_argument_out_of_range_is_a_user_error(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        config(**arguments)


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for field in (*dataclasses.fields(LoopOptions), *dataclasses.fields(SaeOptions)):
        assert f"| `{field.name}` |" in page


def test_there_are_at_most_fifteen_flags() -> None:
    assert len(dataclasses.fields(TrainConfig)) <= 15


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("train_sae.config", ["torch", "sae_lens", "transformers"]),
        ("train_sae.run", ["sae_lens", "transformers", "wandb"]),
    ],
)
def test_import_stays_light(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {absent} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
