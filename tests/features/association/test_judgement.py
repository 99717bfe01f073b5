from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from features.association.judgement import within_p_value


def test_the_p_value_of_a_place_is_students() -> None:
    within = np.array([0.4, 0.6, 0.7, np.nan, 0.8])
    expected = stats.ttest_1samp(within[~np.isnan(within)], 0.5, alternative="greater").pvalue
    assert within_p_value(within) == pytest.approx(expected)


def test_the_p_value_of_a_place_is_uniform_where_a_latent_follows_none() -> None:
    rng = np.random.default_rng(0)
    found = [within_p_value(0.5 + 0.1 * rng.standard_normal(20)) for _ in range(1000)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_videos_that_all_agree_or_are_too_few() -> None:
    assert within_p_value(np.full(10, 1.0)) == 0.5**10
    assert within_p_value(np.full(10, 0.5)) == within_p_value(np.full(10, 0.2)) == 1.0
    assert within_p_value(np.array([1.0, np.nan])) == 1.0
