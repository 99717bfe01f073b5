"""Trainings that log to Weights & Biases."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from collect.errors import UserError
from tests.train_sae.stores import write_run
from tests.train_sae.trainings import short_training
from train_sae.checkpoint import checkpoints
from train_sae.reading import read_metrics
from train_sae.run import train


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with activations that no test changes, except by adding SAEs under names of its own."""
    return write_run(tmp_path_factory.mktemp("run"))


def test_weights_and_biases_gets_what_the_file_gets(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    fake = SimpleNamespace(
        log=lambda data, step: calls.append((step, data)),
        finish=lambda: calls.append("finished"),
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **arguments: calls.append(arguments) or fake))
    folder = train(short_training(run_folder, name="logged", wandb=True))
    assert calls[0]["name"] == "logged"
    assert calls[0]["config"]["d_sae"] == 64
    assert calls[1:-1] == [(line["step"], line) for line in read_metrics(folder)]
    assert calls[-1] == "finished"


def test_a_resumed_training_goes_on_in_its_weights_and_biases_run(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = short_training(run_folder, name="again", wandb=True)
    ids: list[tuple[str, str]] = []

    def init(**arguments: Any) -> Any:
        known = json.loads((settings.folder / "wandb.json").read_text())["id"]
        ids.append((arguments["id"], known))
        if len(ids) == 1:
            raise RuntimeError("killed as the run begins")
        return SimpleNamespace(log=lambda *_, **__: None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(RuntimeError):
        train(settings)
    for _ in range(2):
        train(settings)
        (settings.folder / "summary.json").unlink()
        checkpoints(settings.folder)[-1].unlink()
    assert len(ids) == 3
    # One id for all three starts, and in the file each time before a run of it could exist.
    assert len({name for pair in ids for name in pair}) == 1
    (settings.folder / "wandb.json").write_text("{}")
    with pytest.raises(UserError, match=r"wandb\.json lacks the field `id`: delete it to begin a new"):
        train(settings)


def test_weights_and_biases_works_without_a_network(run_folder: Path, tmp_path: Path) -> None:
    settings = short_training(run_folder, name="offline", wandb=True)
    code = f"""
import os, signal, sys
from pathlib import PosixPath
import train_sae.run
import train_sae.trainer
from train_sae.config import TrainConfig
step = train_sae.trainer.take_step
def fatal(state, *rest):
    if state.step == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, *rest)
train_sae.trainer.take_step = fatal
train_sae.run.train({settings!r})
"""
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    for kill_at, status in (("24", -9), ("-1", 0)):
        words = [sys.executable, "-c", code, kill_at]
        done = subprocess.run(words, env=environment, capture_output=True, check=False)
        assert done.returncode == status, done.stderr.decode()
    run_id = json.loads((settings.folder / "wandb.json").read_text())["id"]
    records = sorted((settings.folder / "wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(records) == 2  # one a start, of one run
    content = records[1].read_bytes()
    assert b"videos_per_batch" in content
    assert b"offline" in content
