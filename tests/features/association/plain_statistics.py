"""Effect sizes of sparse latent activations against binary labels, for all latents at once.

Most activations are exactly zero, so every statistic is computed from the sorted non-zeros plus one tie block at zero.
A *unit* is what is labelled: a visual token, or a frame with its activations max-pooled. Everything here is a pure
function of arrays; it is the plain reference for `features.association`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from features.activity import PairSums


@dataclass(frozen=True, kw_only=True)
class RankedCodes:
    """Non-zero activations in ascending order within each (latent, group).

    A group is a set of units whose activations are compared with each other: all units, or those of one video.
    """

    n_latents: int
    n_groups: int
    group_of_unit: Int64[np.ndarray, " unit"]
    unit: Int64[np.ndarray, " nonzero"]
    """Unit of each non-zero."""
    column: Int64[np.ndarray, " nonzero"]
    """latent * n_groups + group of each non-zero; ascending."""
    start: Int64[np.ndarray, " column_and_end"]
    """Index of the first non-zero of each column, and the number of non-zeros."""
    tie_start: Int64[np.ndarray, " nonzero"]
    """Index of the first non-zero of the same column and value."""
    tie_stop: Int64[np.ndarray, " nonzero"]
    """One past the last of these."""


def rank_codes(codes: sparse.csr_array, group_of_unit: Int64[np.ndarray, " unit"] | None = None) -> RankedCodes:
    """Sort the non-zeros of each (latent, group).

    Args:
        codes: [unit, latent], float32, not negative.
        group_of_unit: group 0, 1, ... of each unit; all units are one group if not given.
    """
    n_units, n_latents = codes.shape
    group = np.zeros(n_units, dtype=np.int64) if group_of_unit is None else group_of_unit
    n_groups = int(group.max(initial=0)) + 1
    entries = codes.tocoo()
    kept = entries.data != 0
    unit, latent, value = entries.row[kept].astype(np.int64), entries.col[kept].astype(np.int64), entries.data[kept]
    assert value.dtype == np.float32, "activations are float32"
    assert not (value < 0).any(), "latent activations are not negative"
    column = latent * n_groups + group[unit]
    # The bits of positive floats sort as the floats do, so that one integer holds both keys: a single, fast sort.
    order = np.argsort((column << 32) | value.view(np.uint32).astype(np.int64))
    unit, column, value = unit[order], column[order], value[order]
    is_first = np.ones(len(unit), dtype=bool)
    is_first[1:] = (column[1:] != column[:-1]) | (value[1:] != value[:-1])
    firsts = np.flatnonzero(is_first)
    tie = np.cumsum(is_first) - 1
    return RankedCodes(
        n_latents=n_latents,
        n_groups=n_groups,
        group_of_unit=group,
        unit=unit,
        column=column,
        start=np.searchsorted(column, np.arange(n_latents * n_groups + 1)).astype(np.int64),
        tie_start=firsts[tie].astype(np.int64),
        tie_stop=np.append(firsts[1:], len(unit))[tie].astype(np.int64),
    )


def auroc(
    ranked: RankedCodes, positive: Bool[np.ndarray, " unit"], negative: Bool[np.ndarray, " unit"]
) -> Float64[np.ndarray, "latent group"]:
    """Area under the ROC curve: P(positive > negative) + ½ P(equal); NaN where a group lacks positives or negatives."""
    counts = _count(ranked, positive, negative)
    above = counts.negatives_before
    hit = np.flatnonzero(positive[ranked.unit])
    column = ranked.column[hit]
    # Negatives strictly below, plus half of the tied ones, counted from the first non-zero of all.
    beaten = 0.5 * (above[ranked.tie_start[hit]] + above[ranked.tie_stop[hit]])
    n_columns = len(ranked.start) - 1
    wins = np.bincount(column, weights=beaten, minlength=n_columns).astype(np.float64)
    wins -= counts.positive_nonzeros * above[ranked.start[:-1]]
    zero_negatives = counts.negatives - counts.negative_nonzeros
    wins += counts.positive_nonzeros * zero_negatives
    wins += 0.5 * (counts.positives - counts.positive_nonzeros) * zero_negatives
    return _ratio(wins, counts.positives * counts.negatives).reshape(ranked.n_latents, ranked.n_groups)


def average_precision(
    ranked: RankedCodes, positive: Bool[np.ndarray, " unit"], negative: Bool[np.ndarray, " unit"]
) -> Float64[np.ndarray, "latent group"]:
    """Mean over the positives of the precision at their activation; units with equal activation enter together."""
    counts = _count(ranked, positive, negative)
    hit = np.flatnonzero(positive[ranked.unit])
    stop, first = ranked.start[ranked.column[hit] + 1], ranked.tie_start[hit]
    positives_before = _cumulative(positive[ranked.unit])
    true = positives_before[stop] - positives_before[first]
    false = counts.negatives_before[stop] - counts.negatives_before[first]
    total = np.bincount(ranked.column[hit], weights=true / (true + false), minlength=len(ranked.start) - 1)
    base_rate = _ratio(counts.positives, counts.positives + counts.negatives)
    total = total + (counts.positives - counts.positive_nonzeros) * base_rate
    return _ratio(total, counts.positives).reshape(ranked.n_latents, ranked.n_groups)


def best_threshold(
    activations: Float64[np.ndarray, " unit"],
    positive: Bool[np.ndarray, " unit"],
    negative: Bool[np.ndarray, " unit"],
) -> float:
    """Activation from which on calling a unit positive gives the highest F1; the lowest such one in a tie.

    Only thresholds above zero count; infinity where no unit of either class is active.
    """
    used = (positive | negative) & (activations > 0)
    if not used.any():
        return float("inf")
    values, tie = np.unique(activations[used], return_inverse=True)
    true = np.cumsum(np.bincount(tie, weights=positive[used], minlength=len(values))[::-1])[::-1]
    called = np.cumsum(np.bincount(tie, minlength=len(values))[::-1])[::-1]
    f1 = 2 * true / (called + positive.sum())
    return float(values[np.argmax(f1)])


def f1_score(
    activations: Float64[np.ndarray, " unit"],
    positive: Bool[np.ndarray, " unit"],
    negative: Bool[np.ndarray, " unit"],
    threshold: float,
) -> float:
    """F1 of calling positive what reaches the threshold; NaN without positives."""
    called = activations >= threshold
    true = int((called & positive).sum())
    total = int((called & (positive | negative)).sum()) + int(positive.sum())
    return 2 * true / total if positive.any() else float("nan")


def mid_rank_excess(ranked: RankedCodes) -> tuple[Float64[np.ndarray, " nonzero"], Float64[np.ndarray, " latent"]]:
    """Mid-ranks in (0, 1) among all units of one group, split into a constant and what non-zeros have above it.

    Returns:
        excess: rank of each non-zero minus the rank of a zero of the same latent.
        zero_rank: rank of a zero, per latent.
    """
    assert ranked.n_groups == 1, "ranks are taken over one group"
    n_units = len(ranked.group_of_unit)
    n_zeros = n_units - np.diff(ranked.start)
    below = n_zeros[ranked.column] + 0.5 * (ranked.tie_start + ranked.tie_stop) - ranked.start[ranked.column]
    zero_rank = 0.5 * n_zeros / n_units
    return below / n_units - zero_rank[ranked.column], zero_rank


def video_wins(
    activations: Float64[np.ndarray, " unit"],
    positive: Bool[np.ndarray, " unit"],
    negative: Bool[np.ndarray, " unit"],
    video: Int64[np.ndarray, " unit"],
    n_videos: int,
) -> Float64[np.ndarray, "video video"]:
    """Pairs in which a positive of video v beats a negative of video w (a tie counts ½), for every v and w.

    The sum over v and w, divided by the number of pairs, is the AUROC; weights on the videos give its bootstrap.
    """
    values, rank = np.unique(activations, return_inverse=True)

    def count(mask: Bool[np.ndarray, " unit"]) -> Float64[np.ndarray, "video value"]:
        cells = np.bincount(video[mask] * len(values) + rank[mask], minlength=n_videos * len(values))
        return cells.reshape(n_videos, len(values)).astype(np.float64)

    negatives = count(negative)
    beaten = np.cumsum(negatives, axis=1) - 0.5 * negatives
    return count(positive) @ beaten.T


def pair_sums(
    codes: sparse.csr_array, first: Int64[np.ndarray, " pair"], second: Int64[np.ndarray, " pair"]
) -> PairSums:
    """Sum activations and their products over the pairs (first[i], second[i]) of units.

    With the same patch in consecutive time steps as pairs, the correlation is the lag-1 temporal autocorrelation.
    """
    a, b = codes[first].astype(np.float64), codes[second].astype(np.float64)
    product = a.multiply(b).tocsr()
    return PairSums(
        n_pairs=len(first),
        a=_column_sum(a),
        b=_column_sum(b),
        aa=_column_sum(a.multiply(a)),
        bb=_column_sum(b.multiply(b)),
        ab=_column_sum(product),
        both_active=np.bincount(product.indices[product.data != 0], minlength=codes.shape[1]).astype(np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class _Counts:
    positives: Float64[np.ndarray, " column"]
    negatives: Float64[np.ndarray, " column"]
    positive_nonzeros: Float64[np.ndarray, " column"]
    negative_nonzeros: Float64[np.ndarray, " column"]
    negatives_before: Float64[np.ndarray, " nonzero_and_end"]


def _count(ranked: RankedCodes, positive: Bool[np.ndarray, " unit"], negative: Bool[np.ndarray, " unit"]) -> _Counts:
    assert not (positive & negative).any(), "a unit is positive, negative or neither"

    def per_column(mask: Bool[np.ndarray, " unit"]) -> Float64[np.ndarray, " column"]:
        counts = np.bincount(ranked.group_of_unit[mask], minlength=ranked.n_groups)
        return np.tile(counts.astype(np.float64), ranked.n_latents)

    negatives_before = _cumulative(negative[ranked.unit])
    n_columns = len(ranked.start) - 1
    hits = ranked.column[positive[ranked.unit]]
    return _Counts(
        positives=per_column(positive),
        negatives=per_column(negative),
        positive_nonzeros=np.bincount(hits, minlength=n_columns).astype(np.float64),
        negative_nonzeros=np.diff(negatives_before[ranked.start]),
        negatives_before=negatives_before,
    )


def _cumulative(mask: Bool[np.ndarray, " nonzero"]) -> Float64[np.ndarray, " nonzero_and_end"]:
    total = np.zeros(len(mask) + 1)
    np.cumsum(mask, out=total[1:])
    return total


def _column_sum(matrix: sparse.sparray) -> Float64[np.ndarray, " latent"]:
    return np.asarray(matrix.sum(axis=0), dtype=np.float64).reshape(-1)


def _ratio(
    numerator: Float64[np.ndarray, " column"], denominator: Float64[np.ndarray, " column"]
) -> Float64[np.ndarray, " column"]:
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
