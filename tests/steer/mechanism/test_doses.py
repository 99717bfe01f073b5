"""Doses: hand-computed counts, steps with intervals, and the words for their shape."""

import pytest

from steer.mechanism.doses import DOSES, dose_rows, is_opposed, shape
from steer.mechanism.matched import Estimate
from tests.steer.mechanism.toy_bench import bench_of, expected_count, target

EVIDENCE = {"a": (0.0, 1.0, 0.0, 2.0), "b": (1.0, 0.0, 0.0, 0.0), "c": (0.0, 0.0, 3.0, 0.0)}
BENCH = bench_of(EVIDENCE, {"a": 2, "b": 1, "c": 3})


def about(low: float, high: float) -> Estimate:
    return Estimate(mean=(low + high) / 2, low=low, high=high, n=9)


UP, DOWN, FLAT = about(0.1, 0.3), about(-0.3, -0.1), about(-0.1, 0.2)


def test_the_expected_count_follows_the_dose_as_worked_out_by_hand() -> None:
    rows = dose_rows(BENCH, target(0))
    assert [row["dose"] for row in rows] == list(DOSES)
    for row in rows:
        changes = [
            expected_count([row["dose"] * each for each in own]) - expected_count(own) for own in EVIDENCE.values()
        ]
        assert row["delta_expected_count"] == pytest.approx(sum(changes) / 3, abs=1e-5)
        assert row["n_videos"] == 3
    steps = [rows[at]["delta_expected_count"] - rows[at - 1]["delta_expected_count"] for at in range(1, len(DOSES))]
    assert [row["step"] for row in rows[1:]] == pytest.approx(steps)
    assert {row["shape"] for row in rows} == {"rising"}
    assert {row["opposed"] for row in rows} == {True}


def test_a_latent_that_never_fires_changes_exactly_nothing() -> None:
    rows = dose_rows(BENCH, target(7))
    assert {row["delta_expected_count"] for row in rows} == {0.0}
    assert {(row["shape"], row["opposed"]) for row in rows} == {("undecided", False)}


@pytest.mark.parametrize(
    ("steps", "whole", "word"),
    [
        ([UP, FLAT, UP], UP, "rising"),
        ([DOWN, FLAT, FLAT], DOWN, "falling"),
        ([UP, DOWN, UP], UP, "not monotone"),
        ([FLAT, FLAT, FLAT], FLAT, "undecided"),
        ([FLAT, FLAT, FLAT], UP, "rising"),
        ([DOWN, FLAT, FLAT], UP, "undecided"),
    ],
)
def test_the_shape_is_what_the_intervals_allow(steps: list[Estimate], whole: Estimate, word: str) -> None:
    assert shape(steps, whole) == word


def test_doses_oppose_each_other_only_beyond_their_intervals_and_by_enough() -> None:
    zero = about(0.0, 0.0)
    assert is_opposed([DOWN, FLAT, zero, UP, FLAT])
    assert not is_opposed([DOWN, FLAT, zero, DOWN, UP])  # the first dose above one counts
    assert not is_opposed([DOWN, FLAT, zero, FLAT, UP])
    assert not is_opposed([DOWN, FLAT, zero, about(0.01, 0.03), UP])
