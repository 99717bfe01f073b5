"""The stage in several processes, and killed: the tables are those of one process that nobody killed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from steer.config import SteerConfig
from steer.run import TABLES, steer
from tests import launched
from tests.launched import ROOT, environment, finish_after_kills
from tests.small_run import SAE_NAME

OPTIONS = "--top 1 --associated 0 --operations ablate --controls 2 --analyses doses swaps --items 8 4 --device cpu"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, collected: Path) -> Path:
    run = Path(shutil.copytree(collected, tmp_path_factory.mktemp("alone") / "run"))
    arguments = {"top": 1, "associated": 0, "operations": ("ablate",), "controls": 2, "items": (8, 4)}
    return steer(SteerConfig(run=run, analyses=("doses", "swaps"), device="cpu", **arguments))


def command(run: Path, n: int) -> list[str]:
    return launched.command("steer", run, OPTIONS.split(), n)


def check(folder: Path, expected: Path) -> None:
    for name in (*TABLES, "summary.json"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}


@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_give_the_tables_of_one(n: int, collected: Path, expected: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(collected, tmp_path / "run"))
    done = subprocess.run(command(run, n), capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    check(run / "steer" / SAE_NAME, expected)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_killed_at_random_moments_it_goes_on_to_the_same_tables(
    n: int, collected: Path, expected: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(collected, tmp_path / "run"))
    # Loading takes most of the time, so moments are drawn from all of it.
    n_killed = finish_after_kills(command(run, n), (3.0, 3.0 + 6.0 * n), most=8, seed=n, last_s=300)
    check(run / "steer" / SAE_NAME, expected)
    assert n_killed
