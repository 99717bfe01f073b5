"""Swaps: the toy answers with the partner's evidence, and a line tells following from damage."""

import numpy as np
import pytest

from steer.mechanism.swaps import line, swap_rows, swap_summary
from tests.steer.mechanism.toy_bench import bench_of, expected_count, target

EVIDENCE = {"a": (0.0, 1.0, 0.0, 1.0), "b": (1.0, 0.0, 0.0, 0.0), "c": (0.0, 0.0, 3.0, 0.0), "d": (3.0, 0.0, 0.0, 0.0)}
BENCH = bench_of(EVIDENCE, {"a": 2, "b": 1, "c": 3, "d": 3})


def test_a_swapped_latent_gives_the_answer_of_its_partner() -> None:
    rows = swap_rows(BENCH, target(0))
    pairs = {(row["video_id"], row["partner"]) for row in rows}
    assert pairs == {("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("c", "d"), ("d", "c")}
    for row in rows:
        before, after = (expected_count(EVIDENCE[row[name]]) for name in ("video_id", "partner"))
        assert row["delta_expected_count"] == pytest.approx(after - before, abs=1e-5)
    (summary,) = swap_summary(rows, target(0), seed=0)
    assert summary["n_swaps"] == 6
    assert summary["slope"] > 0.1


def test_a_latent_that_the_answer_does_not_read_follows_nothing() -> None:
    (summary,) = swap_summary(swap_rows(BENCH, target(5)), target(5), seed=0)
    assert (summary["slope"], summary["offset"]) == (0.0, 0.0)


def test_the_line_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(-2, 3, size=30).astype(np.float64), rng.normal(size=30)
    weights = rng.integers(0, 3, size=(4, 30)).astype(np.float64)
    slopes, offsets = line(x, y, weights)
    for row in range(4):
        expected = np.polyfit(np.repeat(x, weights[row].astype(int)), np.repeat(y, weights[row].astype(int)), 1)
        assert (slopes[row], offsets[row]) == pytest.approx(tuple(expected))


def test_swaps_between_equal_counts_alone_have_no_slope() -> None:
    same = bench_of({"c": EVIDENCE["c"], "d": EVIDENCE["d"]}, {"c": 3, "d": 3})
    assert swap_summary(swap_rows(same, target(0)), target(0), seed=0) == []
