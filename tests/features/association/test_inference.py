from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from features.association.inference import (
    auroc_interval,
    benjamini_hochberg,
    bootstrap_counts,
    clustered_z,
    divide_strata,
    mean_interval,
    merge_strata,
    permute_within,
    quantiles_of_rows,
    summable,
)


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted .01 .02 .03 .5 times 4/rank: .04 .04 .04 .5; each is the least of its own and later ones.
    q = benjamini_hochberg(np.array([0.03, 0.5, 0.01, 0.02]))
    np.testing.assert_allclose(q, [0.04, 0.5, 0.04, 0.04])


def test_benjamini_hochberg_leaves_untested_out() -> None:
    # With two tests: .04 * 2 / 1 = .08 and .06 * 2 / 2 = .06, so both are .06.
    q = benjamini_hochberg(np.array([0.04, np.nan, 0.06]))
    np.testing.assert_allclose(q, [0.06, np.nan, 0.06])


def test_benjamini_hochberg_equals_scipy() -> None:
    p = np.random.default_rng(0).random(200) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))


def test_bootstrap_draws_as_many_videos_as_there_are() -> None:
    counts = bootstrap_counts(7, 50, np.random.default_rng(0))
    assert (counts.sum(axis=1) == 7).all()


def test_mean_interval_covers_the_mean_and_ignores_missing_videos() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, size=(1, 60))
    padded = np.concatenate([values, np.full((1, 60), np.nan)], axis=1)
    low, high = mean_interval(padded, bootstrap_counts(120, 2000, np.random.default_rng(1)))
    error = values.std(ddof=1) / np.sqrt(60)
    assert low[0] == pytest.approx(values.mean() - 1.96 * error, abs=0.5 * error)
    assert high[0] == pytest.approx(values.mean() + 1.96 * error, abs=0.5 * error)


def exact_interval(
    wins: np.ndarray, n_positive: np.ndarray, n_negative: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """With the wins of every video over every other, weighted by both."""
    areas = ((counts @ wins) * counts).sum(axis=1) / ((counts @ n_positive) * (counts @ n_negative))
    low, high = np.nanquantile(areas, [0.025, 0.975])
    return float(low), float(high)


def test_auroc_interval_is_close_to_resampling_all_pairs_of_videos() -> None:
    rng = np.random.default_rng(0)
    n_videos = 60
    n_positive, n_negative = rng.integers(0, 9, size=(2, n_videos)).astype(np.float64)
    level = rng.normal(0.0, 0.7, size=n_videos)  # of a video's positives; of its negatives it is 0
    scores = [
        (rng.normal(level[v] + 0.8, size=int(n_positive[v])), rng.normal(size=int(n_negative[v])))
        for v in range(n_videos)
    ]
    wins = np.array([[(own[0][:, None] > other[1]).sum() for other in scores] for own in scores], dtype=np.float64)
    counts = bootstrap_counts(n_videos, 2000, rng)
    low, high = auroc_interval(
        wins.sum(axis=1)[None], wins.sum(axis=0)[None], n_positive[None], n_negative[None], counts
    )
    expected = exact_interval(wins, n_positive, n_negative, counts)
    assert 0.05 < expected[1] - expected[0] < 0.3
    np.testing.assert_allclose((low[0], high[0]), expected, atol=0.01)


def test_auroc_interval_of_perfect_and_missing_pairs() -> None:
    one, counts = np.ones((2, 3)), bootstrap_counts(3, 50, np.random.default_rng(0))
    wins = np.array([[3.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
    negatives = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    low, high = auroc_interval(wins, wins, one, negatives, counts)
    np.testing.assert_array_equal([low, high], [[1.0, np.nan], [1.0, np.nan]])


def test_auroc_interval_by_hand() -> None:
    # Two videos with one positive and one negative each: video 0 wins against both, video 1 never. The area is 2 / 4;
    # excess of video 0: 2 - .5 * 2 + 1 - .5 * 2 = 1, of video 1: 0 - 1 + 1 - 1 = -1. Drawn once each they cancel;
    # drawing one twice adds 2 * (+-1) / (2 * 2).
    sides = np.array([[2.0, 0.0]]), np.array([[1.0, 1.0]]), np.ones((1, 2)), np.ones((1, 2))
    for drawn, expected in (([1.0, 1.0], 0.5), ([2.0, 0.0], 1.0), ([0.0, 2.0], 0.0)):
        low, high = auroc_interval(*sides, np.array([drawn]))
        assert (low[0], high[0]) == (expected, expected)


def test_clustered_z_by_hand() -> None:
    # .6 .8: mean .7, standard deviation .1414, error .1: z = 2. One video gives none; equal videos decide by sign.
    z = clustered_z(np.array([[0.6, 0.8, np.nan], [0.9, np.nan, np.nan], [0.5, 0.5, 0.5], [0.75, 0.75, 0.75]]))
    np.testing.assert_allclose(z, [2.0, np.nan, 0.0, np.inf])


def test_small_strata_join_their_neighbours() -> None:
    keys = [(0, 0)] * 3 + [(0, 1)] * 2 + [(1, 0)] * 6 + [(1, 1)]
    groups = merge_strata(keys, minimum=5)
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]
    assert [group.tolist() for group in merge_strata(["a"] * 3, minimum=5)] == [[0, 1, 2]]


def test_large_strata_are_divided_at_random_into_like_parts() -> None:
    strata = [np.arange(7), np.arange(7, 300), np.arange(300, 428)]
    parts = divide_strata(strata, np.random.default_rng(0), maximum=128)
    assert [len(part) for part in parts] == [7, 98, 98, 97, 128]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts[1:4])), strata[1])
    assert all((np.diff(part) > 0).all() for part in parts)
    assert all(200 > np.median(part) > 100 for part in parts[1:4]), "not a random part"
    others = divide_strata(strata, np.random.default_rng(1), maximum=128)
    assert parts[1].tolist() != others[1].tolist()
    for small, before in ((parts[0], strata[0]), (parts[4], strata[2])):
        np.testing.assert_array_equal(small, before)


def test_permutations_stay_within_strata() -> None:
    strata = [np.array([0, 2, 4]), np.array([1, 3])]
    permutations = permute_within(strata, 5, 40, np.random.default_rng(0))
    for members in strata:
        assert (np.sort(permutations[:, members], axis=1) == members).all()
    assert len(np.unique(permutations, axis=0)) > 6


def test_intervals_do_not_depend_on_which_pairs_are_judged_together() -> None:
    rng = np.random.default_rng(4)
    values = rng.random((301, 97))
    values[rng.random(values.shape) < 0.3] = np.nan
    counts = bootstrap_counts(97, 50, rng)
    together = mean_interval(values, counts)
    positives, negatives = (rng.integers(1, 50, values.shape).astype(np.float64) for _ in range(2))
    wins, losses = rng.random(values.shape) * positives * 1e6, rng.random(values.shape) * negatives * 1e6
    areas = auroc_interval(wins, losses, positives, negatives, counts)
    for size in (1, 3, 64):
        for start in range(0, 301, 50):
            own = slice(start, start + size)
            for part, whole in zip(mean_interval(values[own], counts), together, strict=True):
                np.testing.assert_array_equal(part, whole[own])
            parts = auroc_interval(wins[own], losses[own], positives[own], negatives[own], counts)
            for part, whole in zip(parts, areas, strict=True):
                np.testing.assert_array_equal(part, whole[own])


def test_summable_values_are_the_values_to_twelve_digits() -> None:
    values = np.random.default_rng(0).standard_normal((4, 5900)) * np.array([[1e-9], [1.0], [1e15], [0.0]])
    error = np.abs(summable(values) - values)
    assert (error <= 2e-12 * np.abs(values).max(axis=1, keepdims=True)).all()
    assert error[1].max() > 0


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 1000])
def test_quantiles_are_numpys_to_the_last_bit(n: int) -> None:
    rng = np.random.default_rng(n)
    draws = np.round(rng.standard_normal((60, n)), 2 if n % 2 else 17) * 10.0 ** rng.integers(-30, 9, (60, 1))
    draws[:20][rng.random((20, n)) < 0.2] = np.nan
    draws[3] = np.nan
    shares = [0.0, 0.025, 0.5, (1 + 0.95) / 2, 1.0]
    found = quantiles_of_rows(draws, shares)
    known = ~np.isnan(draws).all(axis=1)
    np.testing.assert_array_equal(found[:, known], np.nanquantile(draws[known], shares, axis=1))
    assert np.isnan(found[:, ~known]).all()
