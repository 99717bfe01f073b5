"""When further controls of an edit would change nothing that is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ask.inference import FloatArray, sign_flip_p
from steer.evidence.summary import SIGNIFICANT_Q

CLOSED_BY = 5
"""Controls with at least the effect after which no p-value of the usual number of controls could be small.

Source: Besag and Clifford (1991), sequential Monte Carlo p-values; (1 + count) / (1 + n) is larger than theirs.
"""


def is_closed(effect: FloatArray, controls: Sequence[float], seed: int) -> bool:
    """Whether the controls that have run decide already that an edit does not exceed them, or it is null over videos.

    Args:
        effect: change of the matched margin per video by the edit.
        controls: mean change by each control that has run.
        seed: of the sign flips.
    """
    if sign_flip_p(effect, np.random.default_rng(seed)) >= SIGNIFICANT_Q:
        return True
    return int(np.count_nonzero(np.abs(np.asarray(controls)) >= abs(effect.mean()))) >= CLOSED_BY
