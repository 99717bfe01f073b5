"""What may be concluded: intervals over videos, permutation of annotations between videos, false discovery rate.

Tokens of one video depend on each other, and latents and annotations share trends in time and place. The unit of
resampling is therefore the video, and the null gives whole videos each other's annotations: times stay times and places
stay places, only the link between this video and its own annotations is broken.

Pure functions; the caller passes the random generator.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

MIN_STRATUM = 5
"""Videos in a stratum below which it is joined with the next: few videos have few permutations."""
MAX_STRATUM = 128
"""Videos in a stratum above which it is divided: a video then gets the annotations of at most so many others, so that
the time that permutations take is linear in videos, and what they need to hold does not grow."""


def benjamini_hochberg(p_values: Float64[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """Smallest false discovery rate at which each test is a discovery.

    NaN (not tested) stays NaN and does not count.

    Source: Benjamini and Hochberg 1995, step-up procedure in its adjusted form.
    """
    q_values = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    scaled = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    q_values[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return q_values


def bootstrap_counts(
    n_videos: int, n_resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "resample video"]:
    """How often each video is drawn in each resample of `n_videos` videos with replacement."""
    return rng.multinomial(n_videos, np.full(n_videos, 1 / n_videos), size=n_resamples).astype(np.float64)


def mean_interval(
    values: Float64[np.ndarray, "pair video"],
    counts: Float64[np.ndarray, "resample video"],
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]]:
    """Percentile bootstrap interval of the mean over videos; videos with NaN do not take part."""
    present = ~np.isnan(values)
    totals = summable(np.where(present, values, 0.0)) @ counts.T
    weights = present.astype(np.float64) @ counts.T
    means = np.full(totals.shape, np.nan)
    np.divide(totals, weights, out=means, where=weights > 0)
    return _percentiles(means, level)


def auroc_interval(
    positive_wins: Float64[np.ndarray, "pair video"],
    negative_losses: Float64[np.ndarray, "pair video"],
    n_positive: Float64[np.ndarray, "pair video"],
    n_negative: Float64[np.ndarray, "pair video"],
    counts: Float64[np.ndarray, "resample video"],
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]]:
    """Percentile bootstrap interval of the pooled AUROC over videos, from sums per video.

    The wins of one video's positives over another's negatives are replaced by their projection on the two videos, whose
    error is of second order in the change of the videos' weights. Otherwise time would grow with the square of videos.

    Args:
        positive_wins: pairs in which a positive of the video beats a negative of any video; a tie counts ½.
        negative_losses: pairs in which a negative of the video is beaten by a positive of any video.
        n_positive: positives per video.
        n_negative: negatives per video.
        counts: from `bootstrap_counts`.
        level: coverage.

    Source: Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53: the components of the
        variance are those that are resampled here.
    """
    positives, negatives = n_positive.sum(axis=1, keepdims=True), n_negative.sum(axis=1, keepdims=True)
    area = np.full(positives.shape, np.nan)
    np.divide(
        positive_wins.sum(axis=1, keepdims=True), positives * negatives, out=area, where=positives * negatives > 0
    )
    excess = positive_wins - area * n_positive * negatives + negative_losses - area * positives * n_negative
    n_pairs = (n_positive @ counts.T) * (n_negative @ counts.T)
    drawn = np.full(n_pairs.shape, np.nan)
    np.divide(summable(excess) @ counts.T, n_pairs, out=drawn, where=n_pairs > 0)
    return _percentiles(np.clip(area + drawn, 0.0, 1.0), level)


def summable(values: Float64[np.ndarray, "pair video"]) -> Float64[np.ndarray, "pair video"]:
    """Values rounded to multiples of one power of two per pair, so fine that their sums over resamples are exact.

    A product of matrices adds in an order that depends on how many pairs there are. Exact sums do not, so that no
    interval depends on which pairs are judged together. At 5,900 videos this rounds by 2⁻⁴⁰ of the largest value.
    """
    bits = 52 - values.shape[1].bit_length()
    most = np.nan_to_num(np.abs(values).max(axis=1, initial=0.0, keepdims=True))
    unit = np.ldexp(1.0, np.frexp(most)[1] - bits)
    return np.rint(values / unit) * unit


def clustered_z(values: Float64[np.ndarray, "pair video"], centre: float = 0.5) -> Float64[np.ndarray, " pair"]:
    """Standardised mean over videos: (mean − centre) / standard error; NaN with fewer than two videos."""
    present = ~np.isnan(values)
    n = present.sum(axis=1)
    safe_n = np.maximum(n, 1)
    mean = np.where(present, values, 0.0).sum(axis=1) / safe_n
    spread = np.where(present, values - mean[:, None], 0.0)
    error = np.sqrt((spread**2).sum(axis=1) / np.maximum(n - 1, 1) / safe_n)
    difference = np.where(np.abs(mean - centre) < 1e-12, 0.0, mean - centre)
    # Without any spread the mean is certain: its sign decides.
    z = np.where(error > 0, difference / np.where(error > 0, error, 1.0), np.copysign(np.inf, difference))
    z[difference == 0] = 0.0
    return np.where(n >= 2, z, np.nan)


def merge_strata(keys: Sequence[Hashable], minimum: int = MIN_STRATUM) -> list[Int64[np.ndarray, " _"]]:
    """Group videos by key, joining a group with the next one in key order until it has `minimum` members.

    Keys are ordered by their text, so that neighbours share their leading parts; a remainder joins the last group.
    """
    groups: list[list[int]] = []
    pending: list[int] = []
    for key in sorted(set(keys), key=repr):
        pending += [index for index, other in enumerate(keys) if other == key]
        if len(pending) >= minimum:
            groups.append(pending)
            pending = []
    if pending and groups:
        groups[-1] += pending
    elif pending:
        groups.append(pending)
    return [np.array(sorted(group), dtype=np.int64) for group in groups]


def divide_strata(
    strata: Sequence[Int64[np.ndarray, " _"]], rng: np.random.Generator, maximum: int = MAX_STRATUM
) -> list[Int64[np.ndarray, " _"]]:
    """Divide groups of more than `maximum` members at random into as few of about the same size as it takes.

    A test that permutes within the parts is as exact: under the null, videos that can be exchanged within a group can
    be exchanged within any part of it that is drawn without looking at them.
    """
    parts: list[Int64[np.ndarray, " _"]] = []
    for group in strata:
        n_parts = -(-len(group) // maximum)
        mixed = rng.permutation(group) if n_parts > 1 else group
        parts += [np.sort(part) for part in np.array_split(mixed, n_parts)]
    return parts


def permute_within(
    strata: Sequence[Int64[np.ndarray, " _"]], n_videos: int, n_permutations: int, rng: np.random.Generator
) -> Int64[np.ndarray, "permutation video"]:
    """Random permutations of the videos that never leave a stratum.

    Returns:
        [b, v]: the video whose annotations video v gets in permutation b.
    """
    result = np.tile(np.arange(n_videos, dtype=np.int64), (n_permutations, 1))
    for members in strata:
        result[:, members] = rng.permuted(np.tile(members, (n_permutations, 1)), axis=1)
    return result


def quantiles_of_rows(
    draws: Float64[np.ndarray, "row draw"], shares: Sequence[float]
) -> Float64[np.ndarray, "share row"]:
    """Quantiles of each row; NaN does not count, and a row of nothing else has none.

    What `numpy.nanquantile` gives, to the last bit, in a third of its time: it goes row by row, and partitions.
    """
    ordered = np.sort(draws, axis=1)  # NaN last
    rows = np.arange(len(ordered))
    last = np.maximum((~np.isnan(ordered)).sum(axis=1), 1) - 1
    result = np.empty((len(shares), len(ordered)))
    for share, row in zip(shares, result, strict=True):
        before = np.floor(share * last).astype(np.int64)
        part = share * last - before
        low, high = ordered[rows, before], ordered[rows, np.minimum(before + 1, last)]
        row[:] = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
    return result


def _percentiles(
    draws: Float64[np.ndarray, "pair resample"], level: float
) -> tuple[Float64[np.ndarray, " pair"], Float64[np.ndarray, " pair"]]:
    low, high = quantiles_of_rows(draws, [(1 - level) / 2, (1 + level) / 2])
    return low, high
