from __future__ import annotations

import numpy as np
from scipy import sparse

from features.labels.units import max_pool, unit_starts, units_of
from tests.features.conftest import plant_videos, records_of


def test_units_of_videos() -> None:
    records = records_of(plant_videos(3))
    assert unit_starts(records, "token").tolist() == [0, 64, 128, 192]
    assert unit_starts(records, "frame").tolist() == [0, 4, 8, 12]
    starts = np.array([0, 2, 3, 5])
    assert units_of(starts, np.array([2, 0])).tolist() == [3, 4, 0, 1]
    assert units_of(starts, np.array([], dtype=np.int64)).tolist() == []


def test_max_pool_equals_the_dense_maximum() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((128, 5)) * (rng.random((128, 5)) < 0.1)
    pooled = max_pool(sparse.csr_array(dense), records_of(plant_videos(2)))
    np.testing.assert_array_equal(pooled.toarray(), dense.reshape(8, 16, 5).max(axis=1))


def test_max_pool_of_nothing() -> None:
    assert max_pool(sparse.csr_array((64, 2)), records_of(plant_videos(1))).shape == (4, 2)
