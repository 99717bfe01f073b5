"""The stage in several processes, and killed: the tables are those of one process that nobody killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.codes import Codes
from features.config import FeaturesConfig
from features.run import features
from tests.features.conftest import D_SAE, PlantedVideo, planted_sae, write_data, write_run
from train_sae.lens.export import save_sae

ROOT = Path(__file__).resolve().parents[2]
FILES = ("catalogue.parquet", "associations.parquet", "combinations.parquet", "exemplars.parquet", "summary.json")
OPTIONS = (
    "--sae planted --baseline frozen --min-videos 5 --permutations 49 --bootstraps 50 --controls 8 --media 0 "
    "--exemplars 2 --batch-size 300"
)
COMBINATIONS = "combinations=2"


@pytest.fixture(scope="module")
def run(planted: list[PlantedVideo], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared-out")
    run = write_run(folder / "run", planted, write_data(folder / "data", planted, with_videos=0))
    sae = planted_sae(rotated=True)
    mixed = replace(sae, W_enc=0.5 * (sae.W_enc + sae.W_enc.roll(1, dims=1)), threshold=0.4 * sae.threshold)
    save_sae(run / "sae" / "frozen", mixed, torch.full((D_SAE,), 0.1))
    return run


@pytest.fixture(scope="module")
def expected(run: Path) -> Path:
    config = FeaturesConfig(
        run=run,
        sae="planted",
        baseline="frozen",
        min_videos=5,
        permutations=49,
        bootstraps=50,
        controls=8,
        media=0,
        exemplars=2,
        batch_size=300,
        options=(COMBINATIONS,),
    )
    return features(config)


def copy_of(run: Path, folder: Path) -> Path:
    for name in ("activations", "sae"):
        shutil.copytree(run / name, folder / name)
    return folder


def command(run: Path, n: int) -> list[str]:
    launched = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}"] if n > 1 else []
    options = [*OPTIONS.split(), "--options", COMBINATIONS]
    return [sys.executable, *launched, "-m", "video_sae", "--", "features", "--run", str(run), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def content_of(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check(found: Path, expected: Path) -> None:
    for name in FILES:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    for name in ("codes.zarr", "codes_by_latent.zarr", "baseline/codes.zarr", "baseline/codes_by_latent.zarr"):
        ours, theirs = (
            {
                path.relative_to(folder / name): path.read_bytes()
                for path in (folder / name).rglob("*")
                if path.is_file()
            }
            for folder in (found, expected)
        )
        assert ours == theirs, name
    left = {path.name for path in found.iterdir()}
    assert left == {path.name for path in expected.iterdir()}


@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_give_the_tables_of_one(n: int, run: Path, expected: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path / "run")
    done = subprocess.run(command(copy, n), capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    check(copy / "features" / "planted", expected)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_killed_at_random_moments_it_goes_on_to_the_same_tables(
    n: int, run: Path, expected: Path, tmp_path: Path
) -> None:
    copy = copy_of(run, tmp_path / "run")
    rng = random.Random(n)
    n_killed = 0
    for _ in range(11):
        process = subprocess.Popen(
            command(copy, n),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,
        )
        try:
            # Loading takes a few seconds, and the stage itself about as long.
            process.wait(timeout=rng.uniform(2.0, 2.0 + 4.0 * n) if n_killed < 10 else 200)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            n_killed += 1
            continue
        assert process.returncode == 0
        break
    check(copy / "features" / "planted", expected)
    assert n_killed


def test_what_another_number_of_processes_left_is_made_again(run: Path, expected: Path, tmp_path: Path) -> None:
    """A run in three processes was killed while it encoded; it goes on in one."""
    copy = copy_of(run, tmp_path / "run")
    folder = copy / "features" / "planted"
    folder.mkdir(parents=True)
    shutil.copy(expected / "config.json", folder / "config.json")
    shutil.copytree(expected / "codes.zarr", folder / "codes.zarr.0-of-3")
    shutil.copytree(expected / "codes.zarr", folder / "codes.zarr.1-of-3.partial")
    done = subprocess.run(command(copy, 1), capture_output=True, text=True, timeout=100, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    check(folder, expected)
    codes = Codes.open(folder / "codes.zarr")
    assert len(codes.by_latent(np.arange(codes.d_sae)).data) == codes.n_nonzeros
