from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from tests.features.association.plain_statistics import (
    auroc,
    average_precision,
    best_threshold,
    mid_rank_excess,
    pair_sums,
    rank_codes,
    video_wins,
)
from tests.features.association.plain_statistics import f1_score as f1_at

POSITIVE, NEGATIVE, NEITHER = 1, 0, -1


@st.composite
def labelled_codes(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few distinct values, so that ties at and above zero are common; some units belong to neither class."""
    n = draw(st.integers(2, 30))
    values = draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 1.25, 3.0]), min_size=3 * n, max_size=3 * n))
    classes = draw(st.lists(st.sampled_from([POSITIVE, NEGATIVE, NEITHER]), min_size=n, max_size=n))
    return np.array(values).reshape(n, 3), np.array([POSITIVE, NEGATIVE, *classes[2:]])


def csr(dense: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(dense.astype(np.float32))


@settings(deadline=None, max_examples=60)
@given(labelled_codes())
def test_auroc_and_average_precision_equal_sklearn_on_dense_values(case: tuple[np.ndarray, np.ndarray]) -> None:
    dense, classes = case
    ranked = rank_codes(csr(dense))
    area = auroc(ranked, classes == POSITIVE, classes == NEGATIVE)
    precision = average_precision(ranked, classes == POSITIVE, classes == NEGATIVE)
    used = classes != NEITHER
    for latent in range(dense.shape[1]):
        truth, values = classes[used] == POSITIVE, dense[used, latent]
        assert area[latent, 0] == pytest.approx(roc_auc_score(truth, values))
        assert precision[latent, 0] == pytest.approx(average_precision_score(truth, values))


@settings(deadline=None, max_examples=50)
@given(labelled_codes(), st.integers(1, 4))
def test_auroc_within_groups_equals_auroc_of_each_group_alone(case: tuple[np.ndarray, np.ndarray], n: int) -> None:
    dense, classes = case
    group = np.arange(len(dense), dtype=np.int64) % n
    together = auroc(rank_codes(csr(dense), group), classes == POSITIVE, classes == NEGATIVE)
    for index in range(together.shape[1]):
        own = group == index
        alone = auroc(rank_codes(csr(dense[own])), classes[own] == POSITIVE, classes[own] == NEGATIVE)
        np.testing.assert_array_equal(together[:, index], alone[:, 0])


def test_auroc_without_one_class_is_missing() -> None:
    ranked = rank_codes(csr(np.array([[1.0], [2.0]])))
    assert np.isnan(auroc(ranked, np.array([True, True]), np.array([False, False])))
    assert np.isnan(average_precision(ranked, np.array([False, False]), np.array([True, True])))


def test_auroc_of_a_latent_that_never_fires_is_a_half() -> None:
    ranked = rank_codes(csr(np.zeros((4, 1))))
    assert auroc(ranked, np.array([True, True, False, False]), np.array([False, False, True, True])) == 0.5


@settings(deadline=None, max_examples=50)
@given(labelled_codes(), st.integers(1, 4))
def test_video_wins_sum_to_the_auroc(case: tuple[np.ndarray, np.ndarray], n_videos: int) -> None:
    dense, classes = case
    video = np.arange(len(dense), dtype=np.int64) % n_videos
    positive, negative = classes == POSITIVE, classes == NEGATIVE
    wins = video_wins(dense[:, 0], positive, negative, video, n_videos)
    area = auroc(rank_codes(csr(dense)), positive, negative)[0, 0]
    assert wins.sum() / (positive.sum() * negative.sum()) == pytest.approx(area)


def test_video_wins_by_hand() -> None:
    # Positives: video 0 has 2, video 1 has 1. Negatives: video 0 has 1 and 0, video 1 has 3.
    activations = np.array([2.0, 1.0, 1.0, 0.0, 3.0])
    positive = np.array([True, True, False, False, False])
    wins = video_wins(activations, positive, ~positive, np.array([0, 1, 0, 0, 1]), 2)
    # Video 0's 2 beats 1 and 0 but not 3; video 1's 1 ties with 1, beats 0, loses to 3.
    np.testing.assert_array_equal(wins, [[2.0, 0.0], [1.5, 0.0]])


def test_mid_ranks_by_hand() -> None:
    ranked = rank_codes(csr(np.array([[0.0], [2.0], [0.0], [2.0], [5.0]])))
    excess, zero_rank = mid_rank_excess(ranked)
    # Two zeros hold ranks 1 and 2 (mid-rank less a half: 1), the 2s ranks 3 and 4 (3), the 5 rank 5 (4.5), out of 5.
    assert zero_rank[0] == pytest.approx(1 / 5)
    np.testing.assert_allclose(excess + zero_rank[0], [3 / 5, 3 / 5, 4.5 / 5])


def test_best_threshold_by_hand() -> None:
    activations = np.array([0.0, 1.0, 2.0, 3.0, 2.0, 0.0])
    positive = np.array([True, False, True, True, False, False])
    # From 1: 2 of 4 calls are right, F1 = 4 / (4 + 3). From 2: 4 / (3 + 3) = .67. From 3: 2 / (1 + 3) = .5.
    threshold = best_threshold(activations, positive, ~positive)
    assert threshold == 2.0
    assert f1_at(activations, positive, ~positive, threshold) == pytest.approx(4 / 6)
    assert f1_at(activations, positive, ~positive, threshold) == pytest.approx(f1_score(positive, activations >= 2))


def test_a_latent_that_never_fires_calls_nothing_positive() -> None:
    positive = np.array([True, False])
    threshold = best_threshold(np.zeros(2), positive, ~positive)
    assert threshold == float("inf")
    assert f1_at(np.zeros(2), positive, ~positive, threshold) == 0.0


def test_lag_one_autocorrelation_by_hand() -> None:
    # One patch over five steps: pairs (0,1) (1,1) (1,0) (0,0). Means 1/2 and 1/2, covariance 1/4 - 1/4 = 0.
    codes = csr(np.array([[0.0], [1.0], [1.0], [0.0], [0.0]]))
    sums = pair_sums(codes, np.arange(4), np.arange(1, 5))
    assert sums.correlation()[0] == pytest.approx(0.0)
    # Dropping the last pair: (0,1) (1,1) (1,0): covariance 1/3 - 4/9 = -1/9, variances 2/9: correlation -1/2.
    assert pair_sums(codes, np.arange(3), np.arange(1, 4)).correlation()[0] == pytest.approx(-0.5)
    assert sums.both_active[0] == 1


def test_pair_sums_add_up_over_blocks() -> None:
    dense = np.random.default_rng(0).random((40, 3)) * (np.random.default_rng(1).random((40, 3)) < 0.4)
    first = np.arange(39)
    whole = pair_sums(csr(dense), first, first + 1)
    halves = pair_sums(csr(dense), first[:20], first[:20] + 1) + pair_sums(csr(dense), first[20:], first[20:] + 1)
    np.testing.assert_allclose(halves.correlation(), whole.correlation())
    stored = dense.astype(np.float32)
    expected = [np.corrcoef(stored[:-1, latent], stored[1:, latent])[0, 1] for latent in range(3)]
    np.testing.assert_allclose(whole.correlation(), expected, atol=1e-6)


def test_correlation_of_a_latent_that_never_varies_is_missing() -> None:
    assert np.isnan(pair_sums(csr(np.zeros((3, 1))), np.arange(2), np.arange(1, 3)).correlation()[0])
