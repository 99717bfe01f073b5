"""Controls go on as long as an effect may exceed them, and no longer."""

import numpy as np
import pytest

from steer.evidence.stopping import CLOSED_BY, is_closed

STRONG = np.linspace(-2.0, -1.0, 8)  # eight videos of one sign: p = 2 / 2^8


@pytest.mark.parametrize(
    ("effect", "controls", "closed"),
    [
        (STRONG, [0.1] * 60, False),
        (STRONG, [0.1] * 20 + [2.0] * (CLOSED_BY - 1), False),
        (STRONG, [0.1] * 20 + [-2.0, 2.0] * 2 + [1.5], True),  # the fifth is as large as the effect's mean
        (np.array([-2.0, 2.1, -1.0, 1.0, 0.5, -0.6]), [0.0], True),  # nothing over videos
        (np.zeros(8), [0.0], True),
    ],
)
def test_decisions(effect: np.ndarray, controls: list[float], closed: bool) -> None:
    assert is_closed(effect, controls, seed=0) == closed
