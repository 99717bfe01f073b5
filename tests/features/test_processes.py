"""The stage in several processes, and killed: the tables are those of one process that nobody killed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.codes import Codes
from features.config import FeaturesConfig
from features.run import features
from tests import launched
from tests.features.conftest import D_SAE, PlantedVideo, planted_sae, write_data, write_run
from tests.launched import ROOT, environment, finish_after_kills
from train_sae.lens.export import save_sae

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
    return launched.command("features", run, [*OPTIONS.split(), "--options", COMBINATIONS], n)


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
    # Loading takes a few seconds, and the stage itself about as long.
    n_killed = finish_after_kills(command(copy, n), (2.0, 3.0 + 2.0 * n), most=10, seed=n, last_s=200)
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
