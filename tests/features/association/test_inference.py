from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from features.association.inference import (
    RankSums,
    auroc_interval,
    benjamini_hochberg,
    bootstrap_counts,
    clustered_z,
    mean_interval,
    merge_strata,
    permutation_p_values,
    permute_within,
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


def test_auroc_interval_weighs_videos() -> None:
    # Video 0 is perfect within itself, video 1 never wins. Drawing each once gives (2 + 0 + 0 + 0) / (2 * 2) = .5;
    # drawing one twice gives 1 or 0.
    wins = np.array([[1.0, 1.0], [0.0, 0.0]])
    one = np.ones(2)
    assert auroc_interval(wins, one, one, np.array([[1.0, 1.0]])) == (0.5, 0.5)
    assert auroc_interval(wins, one, one, np.array([[2.0, 0.0]])) == (1.0, 1.0)
    assert auroc_interval(wins, one, one, np.array([[0.0, 2.0]])) == (0.0, 0.0)


def test_clustered_z_by_hand() -> None:
    # .6 .8: mean .7, standard deviation .1414, error .1: z = 2. One video gives none; equal videos decide by sign.
    z = clustered_z(np.array([[0.6, 0.8, np.nan], [0.9, np.nan, np.nan], [0.5, 0.5, 0.5], [0.75, 0.75, 0.75]]))
    np.testing.assert_allclose(z, [2.0, np.nan, 0.0, np.inf])


def test_small_strata_join_their_neighbours() -> None:
    keys = [(0, 0)] * 3 + [(0, 1)] * 2 + [(1, 0)] * 6 + [(1, 1)]
    groups = merge_strata(keys, minimum=5)
    assert [group.tolist() for group in groups] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11]]
    assert [group.tolist() for group in merge_strata(["a"] * 3, minimum=5)] == [[0, 1, 2]]


def test_permutations_stay_within_strata() -> None:
    strata = [np.array([0, 2, 4]), np.array([1, 3])]
    permutations = permute_within(strata, 5, 40, np.random.default_rng(0))
    for members in strata:
        assert (np.sort(permutations[:, members], axis=1) == members).all()
    assert len(np.unique(permutations, axis=0)) > 6


def three_videos(positive_ranks: np.ndarray) -> RankSums:
    """Three videos of one stratum, one pair; every annotation makes one positive and one negative of rank 0.5."""
    return RankSums(
        loan=np.arange(9).reshape(3, 3),
        positive_ranks=positive_ranks.reshape(9, 1).astype(np.float64),
        positives=np.ones((9, 1)),
        negative_ranks=np.full((9, 1), 0.5),
        negatives=np.ones((9, 1)),
    )


ALL_SIX = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])


def test_p_value_counts_the_permutations_that_reach_the_observed_difference() -> None:
    # Positives rank 1 under a video's own annotation and 0.2 under another's: only the identity reaches the observed.
    p = permutation_p_values(three_videos(np.where(np.eye(3), 1.0, 0.2)), ALL_SIX)
    assert p[0] == pytest.approx((1 + 1) / (6 + 1))


def test_p_value_is_one_when_annotations_are_interchangeable() -> None:
    assert permutation_p_values(three_videos(np.full((3, 3), 0.7)), ALL_SIX)[0] == 1.0


def test_p_value_is_conservative_where_a_permutation_leaves_no_positive() -> None:
    sums = three_videos(np.where(np.eye(3), 1.0, 0.2))
    sums.positives[np.flatnonzero(~np.eye(3, dtype=bool).reshape(-1))] = 0.0
    sums.positive_ranks[np.flatnonzero(~np.eye(3, dtype=bool).reshape(-1))] = 0.0
    # The identity and the two permutations without fixed point reach it; the three swaps keep one video of rank 1.
    assert permutation_p_values(sums, ALL_SIX)[0] == 1.0
