"""Checkpoint files."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from collect.errors import UserError
from train_sae import tensor_file
from train_sae.batches.normalisation import Normalisation
from train_sae.batches.order import Cursor
from train_sae.checkpoint import CheckpointWriter, checkpoints, load_checkpoint, save_checkpoint
from train_sae.step.architectures import initial_weights
from train_sae.step.fastest import StepSettings, sparse_step
from train_sae.step.state import TrainState

NORMALISATION = Normalisation(scale=1 / 3, mean=torch.tensor([0.1, 0.2], dtype=torch.float64))
CURSOR = Cursor(1, 0, 37)


def trained(n_steps: int) -> TrainState:
    state = TrainState(initial_weights(torch.zeros(2), 6, seed=0))
    settings = StepSettings(arch="topk", k=2, dead_tokens=10, aux_k=1)
    for _ in range(n_steps):
        sparse_step(state, torch.ones(4, 2), settings, 1e-3)
    return state


def test_round_trip_is_exact(tmp_path: Path) -> None:
    state = trained(3)
    back, normalisation, cursor = load_checkpoint(save_checkpoint(tmp_path, state, NORMALISATION, CURSOR))
    assert back.step == 3
    assert cursor == CURSOR
    assert normalisation.scale == NORMALISATION.scale
    assert torch.equal(normalisation.mean, NORMALISATION.mean)
    for name, tensor in state.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    state = trained(1)
    for step in (5, 50, 500):
        state.step = step
        save_checkpoint(tmp_path, state, NORMALISATION, CURSOR)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000050.safetensors", "step-00000500.safetensors"]


def test_a_failed_write_leaves_the_checkpoints_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained(1)
    first = save_checkpoint(tmp_path, state, NORMALISATION, CURSOR)

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tensor_file.os, "fsync", fail)
    state.step = 2
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, state, NORMALISATION, CURSOR)
    assert list((tmp_path / "checkpoints").iterdir()) == [first]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, may_write = trained(2), threading.Event()
    expected = {name: tensor.clone() for name, tensor in state.tensors().items()}
    fsync = tensor_file.os.fsync

    def wait_and_sync(descriptor: int) -> None:
        assert may_write.wait(20)
        fsync(descriptor)

    monkeypatch.setattr(tensor_file.os, "fsync", wait_and_sync)
    writer = CheckpointWriter(tmp_path, "", in_background=True)
    writer.save(state, NORMALISATION, CURSOR)
    for tensor in state.weights.tensors().values():
        tensor.data.zero_()
    assert not checkpoints(tmp_path)
    may_write.set()
    writer.wait()
    (path,) = checkpoints(tmp_path)
    back, normalisation, cursor = load_checkpoint(path)
    assert (back.step, cursor, normalisation.scale) == (2, CURSOR, NORMALISATION.scale)
    for name, tensor in expected.items():
        assert torch.equal(back.tensors()[name], tensor), name
    for state.step in (5, 50):
        writer.save(state, NORMALISATION, CURSOR)
    writer.close()
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000005.safetensors", "step-00000050.safetensors"]


def test_a_checkpoint_that_could_not_be_written_stops_the_training_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tensor_file.os, "fsync", fail)
    writer = CheckpointWriter(tmp_path, "", in_background=True)
    writer.save(trained(1), NORMALISATION, CURSOR)
    with pytest.raises(OSError, match="disk full"):
        writer.save(trained(2), NORMALISATION, CURSOR)
    writer.close()


def test_a_damaged_checkpoint_is_a_user_error(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, trained(1), NORMALISATION, CURSOR)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"is damaged .*: delete it to go on from the checkpoint before it"):
        load_checkpoint(path)


def test_another_file_is_a_user_error(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "step-1.safetensors")
    with pytest.raises(UserError, match="is not a checkpoint of this program"):
        load_checkpoint(tmp_path / "step-1.safetensors")
