"""Inference over videos: averages, sign-flip tests, bootstrap intervals and percentiles of controls.

Questions about one video are not independent, so every test works on one number per video. Multiplicity is
`features.association.inference.benjamini_hochberg`. Pure functions of arrays; the caller passes the random generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

EXACT_SIGN_FLIPS = 14
"""With up to this many non-zero videos, all 2^n sign patterns are enumerated; with more, patterns are drawn."""


def video_means(values: Sequence[float] | FloatArray, videos: Sequence[str]) -> FloatArray:
    """Average values that belong to the same video; the result is ordered by video id."""
    sums, counts = _by_video(values, videos)
    return sums / counts


def sign_flip_p(means: FloatArray, generator: np.random.Generator, n_draws: int = 10_000) -> float:
    """Two-sided p-value of the mean over videos under random signs of each video's number.

    A flip does not change zeros, so only the other videos count. With at most 14 of them every sign pattern is
    enumerated and p is exact; otherwise patterns are drawn and p = (1 + #{at least as large}) / (n_draws + 1).

    Args:
        means: one number per video.
        generator: source of the drawn sign patterns.
        n_draws: number of drawn patterns.
    """
    moving = means[means != 0]
    if len(moving) == 0:
        return 1.0
    observed = abs(moving.sum())
    # A pattern that reproduces the observed sum must count as a tie even if it was summed in another order.
    threshold = observed - 1e-9 * np.abs(moving).sum()
    if len(moving) <= EXACT_SIGN_FLIPS:
        patterns = np.arange(2 ** len(moving))[:, None] >> np.arange(len(moving)) & 1
        return float(np.mean(np.abs((1 - 2 * patterns) @ moving) >= threshold))
    signs = generator.integers(0, 2, size=(n_draws, len(moving)), dtype=np.int8) * 2 - 1
    return float((1 + np.count_nonzero(np.abs(signs @ moving) >= threshold)) / (n_draws + 1))


def bootstrap_interval(
    means: FloatArray, generator: np.random.Generator, n_draws: int = 2_000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over videos.

    Returns:
        Its ends; NaN without videos, and of a single one, which cannot tell how videos differ.
    """
    return _interval(means, np.ones(len(means), dtype=np.int64), generator, n_draws, level)


def pooled_interval(
    values: Sequence[float] | FloatArray,
    videos: Sequence[str],
    generator: np.random.Generator,
    n_draws: int = 2_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over questions, by drawing videos with all of their questions.

    Args:
        values: one number per question.
        videos: the video of each.
        generator: source of the draws.
        n_draws: number of draws.
        level: share of the draws within the interval.

    Returns:
        Its ends; NaN where `bootstrap_interval` has none.
    """
    return _interval(*_by_video(values, videos), generator, n_draws, level)


def _by_video(values: Sequence[float] | FloatArray, videos: Sequence[str]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Sum and number of the values of each video, by video id."""
    _, index = np.unique(np.asarray(videos, dtype=str), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, dtype=np.float64))
    return sums.astype(np.float64), np.bincount(index)  # without values, numpy counts in whole numbers


def _interval(
    sums: FloatArray, counts: NDArray[np.int64], generator: np.random.Generator, n_draws: int, level: float
) -> tuple[float, float]:
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = generator.integers(0, len(sums), size=(n_draws, len(sums)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def control_p_value(effect: float, controls: FloatArray) -> float:
    """(1 + #{controls at least as large}) / (n + 1), in absolute value; NaN without controls."""
    if len(controls) == 0:
        return float("nan")
    return float((1 + np.count_nonzero(np.abs(controls) >= abs(effect))) / (len(controls) + 1))


def control_percentile(controls: FloatArray, level: float = 0.95) -> float:
    """Quantile of the absolute effects of controls; NaN without controls."""
    return float(np.quantile(np.abs(controls), level)) if len(controls) else float("nan")
