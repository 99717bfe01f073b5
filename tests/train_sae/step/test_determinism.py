"""Deterministic training."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import train_sae.trainer
from tests.train_sae.stores import SITE, write_run
from train_sae.config import Architecture, TrainConfig
from train_sae.run import train
from train_sae.sae import load_sae
from train_sae.step.determinism import deterministic


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_torch_is_as_before_after_the_block_even_if_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with deterministic(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), deterministic(True):
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("arch", ["topk", "matryoshka_batchtopk", "gated"])
def test_deterministic_trainings_give_equal_bits(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, arch: Architecture
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    seen: list[bool] = []
    take_step = train_sae.trainer.take_step

    def recording_step(*arguments: Any) -> Any:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return take_step(*arguments)

    monkeypatch.setattr(train_sae.trainer, "take_step", recording_step)
    weights: list[dict[str, torch.Tensor]] = []
    for number, options in enumerate(((), ("deterministic=true",), ("deterministic=true",))):
        seen.clear()
        config = TrainConfig(
            run=run_folder, site=SITE, name=f"{arch}-{number}", arch=(arch,), d_sae=(32,), k=(2,), lr=(3e-3,),
            batch_size=128, device="cpu", options=("dead_tokens=500", *options),
        )  # fmt: skip
        weights.append(load_sae(train(config)).stored_tensors())
        assert seen
        assert set(seen) == {bool(options)}
    for name, tensor in weights[0].items():
        assert torch.equal(weights[1][name], tensor)
        assert torch.equal(weights[2][name], tensor)
