"""Arguments of the train stage."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from collect.errors import UserError
from train_sae.config import TrainConfig


def config(**arguments: object) -> TrainConfig:
    return TrainConfig(**{"run": Path("runs/a"), "site": "resid/12", **arguments})  # type: ignore[arg-type]


def test_folder_is_named_after_site_and_architecture() -> None:
    assert config(arch="batchtopk", d_sae=2048, k=16).folder == Path("runs/a/sae/resid_12-batchtopk-2048-k16")


def test_a_given_name_is_kept() -> None:
    assert config(name="first").folder == Path("runs/a/sae/first")


def test_default_learning_rate_falls_with_the_root_of_the_width() -> None:
    assert config(d_sae=2**14).peak_lr == 2e-4
    # Four times the latents, half the rate.
    assert config(d_sae=2**16).peak_lr == pytest.approx(1e-4)
    assert config(lr=0.5).peak_lr == 0.5


def test_dead_after_an_epoch_or_ten_million_tokens() -> None:
    assert config().dead_after(45_000) == 45_000
    assert config().dead_after(10**9) == 10_000_000
    assert config(dead_tokens=7).dead_after(10**9) == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"d_sae": 0, "k": 0}, "--d-sae 0 is too small"),
        ({"k": 0}, "--k 0 is too small"),
        ({"d_sae": 8, "k": 9}, "--k 9 is more than the 8 latents"),
        ({"batch_size": 0}, "--batch-size 0 is too small"),
        ({"checkpoint_every": 0}, "--checkpoint-every 0 is too small"),
        ({"epochs": 0.0}, "--epochs 0.0 is not a positive number"),
        ({"epochs": float("nan")}, "--epochs nan is not a positive number"),
        ({"lr": -1.0}, "--lr -1.0 is not a positive number"),
        ({"dead_tokens": 0}, "--dead-tokens 0 is too small"),
        ({"name": "../other"}, "cannot name a folder"),
        ({"name": ""}, "cannot name a folder"),
    ],
)
def test_an_argument_out_of_range_is_a_user_error(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        config(**arguments)


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
