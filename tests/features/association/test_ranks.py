from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import rankdata

from features.association.ranks import RankLevels
from features.division import ALONE
from tests.features.association.dense import random_codes


def dense_ranks(codes: np.ndarray, levels: RankLevels) -> np.ndarray:
    whole = sparse.csc_array(codes)
    latent = np.repeat(np.arange(codes.shape[1]), np.diff(whole.indptr))
    twice = levels.twice_ranks(latent, whole.data)
    return sparse.csc_array((twice, whole.indices, whole.indptr), shape=whole.shape).toarray()


def expected_ranks(codes: np.ndarray) -> np.ndarray:
    """Twice scipy's mid-rank less that of a zero, which is (1 + zeros) / 2."""
    zero = 0.5 * (1 + (codes == 0).sum(axis=0))
    return np.where(codes > 0, 2 * (rankdata(codes, axis=0) - zero), 0)


def test_twice_the_rank_by_hand() -> None:
    # Two zeros hold ranks 1 and 2 (middle 1.5), the 2s ranks 3 and 4 (3.5), the 5 rank 5: 2, 2 and 3.5 above a zero.
    codes = np.array([[0.0], [2.0], [0.0], [2.0], [5.0]], dtype=np.float32)
    np.testing.assert_array_equal(dense_ranks(codes, RankLevels.of(sparse.csc_array(codes)))[:, 0], [0, 4, 0, 4, 7])


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_scipy_on_dense_values(seed: int) -> None:
    codes = random_codes(np.random.default_rng(seed), 50, 7)
    np.testing.assert_array_equal(dense_ranks(codes, RankLevels.of(sparse.csc_array(codes))), expected_ranks(codes))


def test_latents_by_parts_have_the_ranks_of_all_together() -> None:
    codes = random_codes(np.random.default_rng(0), 50, 9)
    parts = [RankLevels.of(sparse.csc_array(codes[:, i : i + 4]), i) for i in (0, 4, 8)]
    np.testing.assert_array_equal(dense_ranks(codes, RankLevels.joined(parts, ALONE)), expected_ranks(codes))


def test_more_activations_than_levels_share_levels_of_about_equal_size() -> None:
    rng = np.random.default_rng(0)
    codes = (rng.random((4000, 2)) * (rng.random((4000, 2)) < 0.5)).astype(np.float32)
    found = dense_ranks(codes, RankLevels.of(sparse.csc_array(codes), most=20))
    for latent in range(2):
        own = codes[:, latent] > 0
        _, sizes = np.unique(found[own, latent], return_counts=True)
        assert len(sizes) == 20
        assert sizes.max() - sizes.min() <= 1
        # A shared level's rank is the mean of its members', so that ranks are off by half a level at the most.
        off = found[own, latent] - expected_ranks(codes)[own, latent]
        assert np.abs(off).max() <= own.sum() / 20
        assert abs(off.mean()) < 1e-9
