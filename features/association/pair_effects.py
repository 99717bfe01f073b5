"""Effect sizes of single (latent, label) pairs, in time linear in the latent's activations.

Wins are counted between the units where the latent is active; the units where it is not are one tie at zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int8, Int64
from scipy import sparse

from features.association.runs import SortedItems, cumulative, sortable
from features.association.split_units import POSITIVE, SplitUnits

_POSITIVE, _NEGATIVE, _NEITHER = 2, 1, 0


@dataclass(frozen=True, kw_only=True)
class PairEffect:
    """One pair on one split."""

    auroc: float
    auroc_background: float
    """AUROC of the positives against the background units."""
    precision: float
    """Average precision."""
    threshold: float
    f1: float
    """F1 of calling positive what reaches the threshold."""
    within: Float64[np.ndarray, " video"]
    """AUROC within each video; NaN where it lacks positives or negatives."""
    positive_wins: Float64[np.ndarray, " video"]
    """Pairs in which a positive of the video beats a negative of any video; a tie counts ½."""
    negative_losses: Float64[np.ndarray, " video"]
    """Pairs in which a negative of the video is beaten by a positive of any video."""


def pair_effects(
    units: SplitUnits,
    entries: sparse.csc_array,
    column: Int64[np.ndarray, " pair"],
    label: Int64[np.ndarray, " pair"],
    thresholds: Float64[np.ndarray, " pair"] | None,
) -> Iterator[tuple[int, PairEffect]]:
    """Measure pairs, label by label.

    Args:
        units: labels.
        entries: [unit, latent] from `SplitUnits.entries`.
        column: latent of each pair.
        label: label of each pair.
        thresholds: of F1; the best one of each pair if not given.

    Yields:
        Number of a pair, and what was measured.
    """
    marks, n_background = units.marks_by_label, int(units.background.sum())
    classes = np.where(units.eligible, _NEGATIVE, _NEITHER).astype(np.int8)
    for index in np.unique(label):
        own = slice(int(marks.indptr[index]), int(marks.indptr[index + 1]))
        touched, is_positive = marks.indices[own], (marks.data[own] & POSITIVE) > 0
        before = classes[touched]
        classes[touched] = np.where(is_positive, _POSITIVE, _NEITHER)
        counts = _Counts(
            positive=units.n_positive[:, index].astype(np.float64),
            negative=units.n_negative[:, index].astype(np.float64),
            n_background=n_background - int(units.background[touched[is_positive]].sum()),
        )
        for pair in np.flatnonzero(label == index):
            latent = slice(int(entries.indptr[column[pair]]), int(entries.indptr[column[pair] + 1]))
            threshold = None if thresholds is None else float(thresholds[pair])
            yield int(pair), _measure(units, classes, entries.indices[latent], entries.data[latent], counts, threshold)
        classes[touched] = before


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Units of one label, also those where a latent is not active."""

    positive: Float64[np.ndarray, " video"]
    negative: Float64[np.ndarray, " video"]
    n_background: int


def _measure(
    units: SplitUnits,
    classes: Int8[np.ndarray, " unit"],
    unit: np.ndarray,
    value: Float32[np.ndarray, " active"],
    counts: _Counts,
    threshold: float | None,
) -> PairEffect:
    is_positive = classes[unit] == _POSITIVE
    used = classes[unit] != _NEITHER
    video = units.video[unit].astype(np.int64)
    everywhere = np.zeros(len(unit), dtype=np.int64)
    pooled = _Wins.of(everywhere[used], value[used], is_positive[used])
    n_videos, n_positive, n_negative = units.n_videos, counts.positive.sum(), counts.negative.sum()
    zero_negatives = n_negative - pooled.negatives.sum()
    positive_zeros = counts.positive - _per_video(video[used], is_positive[used], n_videos)
    negative_zeros = counts.negative - _per_video(video[used], ~is_positive[used], n_videos)
    own = video[used][pooled.order]
    wins = _per_video(own, np.where(pooled.positives, pooled.below + zero_negatives, 0.0), n_videos)
    wins += 0.5 * positive_zeros * zero_negatives
    losses = _per_video(own, np.where(pooled.negatives, pooled.above, 0.0), n_videos)
    losses += negative_zeros * (pooled.positives.sum() + 0.5 * positive_zeros.sum())

    by_video = _Wins.of(video[used], value[used], is_positive[used])
    own = video[used][by_video.order]
    won = _per_video(own, np.where(by_video.positives, by_video.below + negative_zeros[own], 0.0), n_videos)
    within = np.full(n_videos, np.nan)
    n_pairs = counts.positive * counts.negative
    np.divide(won + 0.5 * positive_zeros * negative_zeros, n_pairs, out=within, where=n_pairs > 0)

    background = is_positive | units.background[unit]
    against = _Wins.of(everywhere[background], value[background], is_positive[background])
    background_zeros = counts.n_background - int(against.negatives.sum())
    background_wins = float((against.below + background_zeros)[against.positives].sum())
    background_wins += 0.5 * float(positive_zeros.sum()) * background_zeros
    if threshold is None:
        threshold = _best_threshold(value[used], is_positive[used], float(n_positive))
    return PairEffect(
        auroc=_share(float(wins.sum()), float(n_positive * n_negative)),
        auroc_background=_share(background_wins, float(n_positive) * counts.n_background),
        precision=_precision(pooled, float(n_positive), float(n_negative)),
        threshold=threshold,
        f1=_f1(value[used], is_positive[used], float(n_positive), threshold),
        within=within,
        positive_wins=wins,
        negative_losses=losses,
    )


@dataclass(frozen=True, kw_only=True)
class _Wins:
    """Active units in ascending order within their group, and how many of the other class each is above or below."""

    order: Int64[np.ndarray, " active"]
    positives: Bool[np.ndarray, " active"]
    negatives: Bool[np.ndarray, " active"]
    below: Float64[np.ndarray, " active"]
    """Active negatives of the group below each, and half of those tied with it."""
    above: Float64[np.ndarray, " active"]
    """Active positives of the group above each, and half of those tied with it; for a single group."""
    reached: Int64[np.ndarray, "class active"]
    """Negatives and positives that reach the activation of each; for a single group."""

    @classmethod
    def of(
        cls, group: Int64[np.ndarray, " active"], value: Float32[np.ndarray, " active"], is_positive: np.ndarray
    ) -> _Wins:
        items = SortedItems.by(group, sortable(value))
        positives = is_positive[items.order]
        first = np.searchsorted(items.key, items.key)
        before = cumulative(~positives)
        positives_before = cumulative(positives)
        start, stop = items.tie_start, items.tie_stop
        return cls(
            order=items.order,
            positives=positives,
            negatives=~positives,
            below=0.5 * (before[start] + before[stop]) - before[first],
            above=positives_before[-1] - 0.5 * (positives_before[start] + positives_before[stop]),
            reached=np.stack([before[-1] - before[start], positives_before[-1] - positives_before[start]]),
        )


def _precision(pooled: _Wins, n_positive: float, n_negative: float) -> float:
    """Mean over the positives of the precision at their activation; units with equal activation enter together."""
    false, true = pooled.reached[:, pooled.positives]
    at_zero = (n_positive - len(true)) * _share(n_positive, n_positive + n_negative)
    return _share(float((true / (true + false)).sum()) + at_zero, n_positive)


def _best_threshold(
    value: Float32[np.ndarray, " active"], is_positive: Bool[np.ndarray, " active"], n_positive: float
) -> float:
    """Activation from which on calling a unit positive gives the highest F1; the lowest such one in a tie.

    Infinity where no unit of either class is active.
    """
    if not len(value):
        return float("inf")
    values, tie = np.unique(value, return_inverse=True)
    true = np.cumsum(np.bincount(tie, weights=is_positive, minlength=len(values))[::-1])[::-1]
    called = np.cumsum(np.bincount(tie, minlength=len(values))[::-1])[::-1]
    return float(values[np.argmax(2 * true / (called + n_positive))])


def _f1(
    value: Float32[np.ndarray, " active"], is_positive: Bool[np.ndarray, " active"], n_positive: float, threshold: float
) -> float:
    called = value >= threshold
    return _share(2 * float((called & is_positive).sum()), float(called.sum()) + n_positive) if n_positive else np.nan


def _per_video(
    video: Int64[np.ndarray, " active"], weights: np.ndarray, n_videos: int
) -> Float64[np.ndarray, " video"]:
    return np.bincount(video, weights=weights, minlength=n_videos).astype(np.float64)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
