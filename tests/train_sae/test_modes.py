"""Files are for whom the user's umask says, whatever library writes them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from demo.vlm.architecture import save_untrained
from tests.train_sae.stores import SITE, write_run
from train_sae.config import TrainConfig
from train_sae.run import train
from train_sae.tensor_file import save_tensors


@pytest.fixture(params=[0o022, 0o027], ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in sorted(folder.rglob("*"))}


def test_every_file_of_a_collection_and_a_training_has_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", n_videos=12)
    options = ("checkpoint_every=2",)  # checkpoints are safetensors files too
    config = TrainConfig(
        run=run, site=SITE, d_sae=(16,), k=(2,), batch_size=64, epochs=0.6, device="cpu", options=options
    )
    train(config)
    found = modes(run)
    names = {Path(name).name for name in found}
    assert {"sae_weights.safetensors", "sparsity.safetensors", "cfg.json", "config.json", "metrics.jsonl"} <= names
    for name, mode in found.items():
        assert mode == (0o777 if (run / name).is_dir() else 0o666) & ~umask, name


def test_a_rewritten_file_has_it_too(umask: int, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_tensors(path, {"x": torch.zeros(2)})
    path.chmod(0o600)
    save_tensors(path, {"x": torch.ones(2)})
    assert modes(tmp_path) == {"some.safetensors": 0o666 & ~umask}


def test_a_model_that_transformers_writes_for_the_demo_has_it(umask: int, tmp_path: Path) -> None:
    save_untrained(tmp_path)
    assert set(modes(tmp_path).values()) == {0o666 & ~umask}
