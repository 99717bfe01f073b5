"""Counters: a planted running count is told from a clock and from noise, and its exchange moves what is known."""

import numpy as np
import pytest
import torch

from steer.codes import VideoCodes
from steer.mechanism.counters import Counted, counter_rows, exchanges, frame_totals, regress
from steer.mechanism.occurrences import EventLabel
from tests.steer.mechanism.toy_bench import EVENT, bench_of, expected_count, segment, video_of
from tests.steer.toy import SUBJECT

LABEL = EventLabel(kind="action", label=EVENT, agreement=1.0)


def planted(n_videos: int, seed: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Latent 0 counts, latent 1 is a clock, latent 2 is noise, latent 3 never fires."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n_videos):
        so_far = (rng.random(12) < 0.3).cumsum().astype(np.float64)
        clock = np.arange(12.0)
        totals = np.stack([so_far, clock, np.zeros(12), np.zeros(12)], axis=1)
        totals[:, :3] += rng.normal(scale=0.2, size=(12, 3))
        found.append((f"v{number}", so_far, totals))
    return found


def counted(videos: list[tuple[str, np.ndarray, np.ndarray]]) -> list[Counted]:
    return [Counted.of(*video) for video in videos]


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=0)


def test_the_count_explains_more_than_time_for_the_counter_alone() -> None:
    fits = regress(counted(planted(20, 0)), counted(planted(20, 1)))
    gain = fits.gain()
    assert gain[0] > 0.1
    assert abs(gain[1]) < 0.01
    assert abs(gain[2]) < 0.01
    assert np.isnan(gain[3])
    assert fits.explained("time")[1] > 0.9
    assert fits.explained("count")[0] > 0.9


def test_the_fit_is_that_of_least_squares_within_videos() -> None:
    fitted, judged = planted(6, 2), planted(4, 3)
    clock = np.arange(12.0)
    x = np.concatenate([np.stack([centred(so_far), centred(clock)], axis=1) for _, so_far, _ in fitted])
    y = np.concatenate([centred(totals[:, 0]) for _, _, totals in fitted])
    slopes = np.linalg.solve(x.T @ x, x.T @ y)
    left = [
        ((centred(totals[:, 0]) - slopes[0] * centred(so_far) - slopes[1] * centred(clock)) ** 2).sum()
        for _, so_far, totals in judged
    ]
    assert regress(counted(fitted), counted(judged)).both[:, 0] == pytest.approx(left)


def test_totals_are_sums_over_the_tokens_of_a_frame() -> None:
    codes = VideoCodes(
        token=torch.tensor([0, 1, 3]), latent=torch.tensor([2, 2, 0]), value=torch.tensor([1.0, 2.0, 5.0]), n_tokens=4
    )
    assert frame_totals(codes, 2, 3).tolist() == [[0, 0, 3], [5, 0, 0]]


def test_exchanges_take_the_latest_step_with_the_wanted_difference() -> None:
    counts = {"a": (0.0, 1.0, 1.0, 1.0), "b": (0.0, 0.0, 1.0, 2.0), "c": (1.0, 2.0, 2.0, 3.0)}
    videos = counted([(name, np.array(so_far), np.zeros((4, 1))) for name, so_far in counts.items()])
    shapes = dict.fromkeys("abc", (4, 1, 1))
    assert exchanges(videos, shapes, 1) == [("a", "b", 3), ("b", "c", 3)]
    assert exchanges(videos, shapes, 0) == [("a", "b", 2), ("b", "a", 2)]
    assert exchanges(videos, {**shapes, "c": (2, 1, 1)}, 1) == [("a", "b", 3)]


def test_a_state_that_the_answer_reads_moves_the_count() -> None:
    # The toy's evidence at a step is the number of events so far, which its answer adds up.
    evidence = {"a": (0.0, 1.0, 1.0, 1.0), "b": (0.0, 0.0, 1.0, 2.0), "c": (1.0, 1.0, 1.0, 2.0)}
    videos = {
        "a": video_of("a", [segment(1)]),
        "b": video_of("b", [segment(2), segment(3, number=1)]),
        "c": video_of("c", [segment(0), segment(3, number=1)]),
    }
    bench = bench_of(evidence, {"a": 1, "b": 2, "c": 2}, videos)
    rows = counter_rows(bench, bench, SUBJECT, LABEL)
    assert [each["latents"] for each in rows] == [[0]]
    assert rows[0]["explained_count"] == pytest.approx(1.0)
    assert rows[0]["n_more"] == 1  # only `a` has a partner with one event more: `b`, at the last step
    moved = expected_count((0.0, 1.0, 1.0, 2.0)) - expected_count(evidence["a"])
    assert rows[0]["state_more"] == pytest.approx(moved, abs=1e-5)
    assert rows[0]["residual_more"] == pytest.approx(moved, abs=1e-5)
    assert rows[0]["state_same"] == pytest.approx(0.0, abs=1e-6)
