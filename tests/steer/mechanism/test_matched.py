"""Means over videos with their intervals."""

import numpy as np

from steer.mechanism.matched import estimate


def test_one_video_has_no_interval() -> None:
    alone = estimate([2.0, float("nan")], seed=0)
    assert (alone.mean, alone.n, alone.sign) == (2.0, 1, 0)
    assert np.isnan([alone.low, alone.high]).all()
    two = estimate([2.0, 4.0], seed=0)
    assert (two.mean, two.low, two.high, two.sign) == (3.0, 2.0, 4.0, 1)
