"""What follows from the arguments, the data and the processes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from train_sae.config import TrainConfig
from train_sae.options import SaeOptions
from train_sae.processes.group import Group
from train_sae.settings import SaeSettings, default_lr, resolve


def resolved(d_in: int = 24, n_tokens: int = 45_000, **arguments: Any) -> SaeSettings:
    plain: dict[str, Any] = {"run": Path("runs/a"), "site": "resid/12", "dtype": "float32", **arguments}
    (sae,) = TrainConfig(**plain).saes()
    return resolve(sae, d_in=d_in, n_tokens=n_tokens)


def test_default_learning_rate_falls_with_the_root_of_the_width() -> None:
    assert default_lr(2**14) == 2e-4
    # Four times the latents, half the rate.
    assert default_lr(2**16) == pytest.approx(1e-4)
    assert resolved(d_sae=(2**14,)).lr == 2e-4
    assert resolved(lr=(0.5,)).lr == 0.5


def test_dead_after_an_epoch_or_ten_million_tokens() -> None:
    assert resolved().step.dead_tokens == 45_000
    assert resolved(n_tokens=10**9).step.dead_tokens == 10_000_000
    assert resolved(n_tokens=10**9, options=("dead_tokens=7",)).step.dead_tokens == 7


def test_steps_are_counted_over_all_epochs() -> None:
    # 2.5 passes over 45,000 tokens in batches of 1,000 are 112.5 steps, and halves are rounded to even.
    assert resolved(epochs=2.5, batch_size=1000).n_steps == 112
    assert resolved(n_tokens=3).n_steps == 1


def test_a_short_training_forgets_its_first_activations_faster() -> None:
    # 20 steps of the running mean, but no less than its usual rate of a hundredth.
    assert resolved(epochs=1.0, batch_size=450).step.threshold_rate == 20 / 100
    assert resolved(batch_size=1).step.threshold_rate == 0.01
    assert resolved(n_tokens=3).step.threshold_rate == 1.0


def test_half_of_the_width_reconstructs_an_error() -> None:
    assert resolved(d_in=24).step.aux_k == 12
    assert resolved(d_in=1).step.aux_k == 1


def test_what_was_typed_arrives_at_the_step() -> None:
    found = resolved(arch=("topk",), k=(3,), seed=5, dtype="bfloat16", options=("ema_decay=0.5", "log_every=9"))
    assert (found.step.arch, found.step.k, found.step.seed) == ("topk", 3, 5)
    assert found.step.precision == torch.bfloat16
    assert found.step.options == SaeOptions(ema_decay=0.5)
    assert found.arguments["options"] == ("ema_decay=0.5",)


def test_the_step_knows_its_processes() -> None:
    group = Group()
    (sae,) = TrainConfig(run=Path("runs/a"), site="resid/12", dtype="float32").saes()
    assert resolve(sae, d_in=24, n_tokens=100, group=group).step.group is group
