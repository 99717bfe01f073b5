"""Further analyses: every table is there, and a killed run that goes on gives what an uninterrupted one gives."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from steer.config import ANALYSES
from steer.mechanism import runner
from steer.mechanism.runner import run_analyses
from steer.mechanism.tables import MECHANISM_TABLES
from tests.steer.mechanism.test_sets import by_latent
from tests.steer.mechanism.toy_bench import bench_of, segment, target, video_of

EVIDENCE = {
    "a": (0.0, 1.0, 1.0, 1.0),
    "b": (0.0, 0.0, 1.0, 2.0),
    "c": (1.0, 1.0, 1.0, 2.0),
}
VIDEOS = {
    "a": video_of("a", [segment(1)]),
    "b": video_of("b", [segment(2), segment(3, number=1)]),
    "c": video_of("c", [segment(0), segment(3, number=1)]),
}
BENCH = bench_of(EVIDENCE, {"a": 1, "b": 2, "c": 2}, VIDEOS, noise={name: torch.ones(4, 4) for name in EVIDENCE})
WITHOUT_FLOW = tuple(name for name in ANALYSES if name != "flow")  # the toy has no attention to cut


def tables(parts: Path, wanted: tuple[str, ...] = WITHOUT_FLOW) -> dict[str, pd.DataFrame]:
    effects = by_latent({0: -1.0, 5: -0.1})
    return run_analyses(parts, wanted, BENCH, BENCH, [target(0), target(5)], effects, VIDEOS.__getitem__)


def test_only_what_is_wanted_has_rows(tmp_path: Path) -> None:
    found = tables(tmp_path, ("doses", "counters"))
    assert set(found) == set(MECHANISM_TABLES)
    assert {name for name, table in found.items() if len(table)} == {"doses", "counters"}
    assert set(found["doses"]["target"]) == {"0", "5"}


def test_a_killed_run_goes_on_to_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tables(tmp_path / "whole")
    assert {name for name, table in whole.items() if len(table)} == set(MECHANISM_TABLES) - {"flow"}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    parts = tmp_path / "parts"
    with monkeypatch.context() as patched:
        patched.setattr(runner, "event_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            tables(parts)
    assert list(parts.glob("doses-*"))
    runs: list[str] = []
    plain = runner.dose_rows
    monkeypatch.setattr(runner, "dose_rows", lambda *given: runs.append("doses") or plain(*given))
    again = tables(parts)
    assert runs == []  # what had run is read
    for name, table in whole.items():
        pd.testing.assert_frame_equal(again[name], table)


@pytest.mark.parametrize("damage", ["torn", "another's"])
def test_a_part_that_is_damaged_or_another_targets_is_run_again(tmp_path: Path, damage: str) -> None:
    whole = tables(tmp_path, ("doses",))
    first, second = sorted(tmp_path.glob("doses-*"))
    first.write_bytes(second.read_bytes() if damage == "another's" else first.read_bytes()[:100])
    pd.testing.assert_frame_equal(tables(tmp_path, ("doses",))["doses"], whole["doses"])
