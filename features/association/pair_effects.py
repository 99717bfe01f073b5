"""Effect sizes of single (latent, label) pairs, in time linear in the latent's activations.

Wins are counted between the units where the latent is active; the units where it is not are one tie at zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import sparse

from features.association.runs import Runs, SortedItems, cumulative
from features.association.split_units import NEITHER, POSITIVE_UNIT, ClassOf, SplitUnits


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
    for index, class_of in units.classes_of(np.unique(label)):
        counts = _Counts(
            positive=units.n_positive[:, index].astype(np.float64),
            negative=units.n_negative_of(np.array([index]))[:, 0].astype(np.float64),
            n_background=units.n_background - int(units.n_positive_background[index]),
        )
        for pair in np.flatnonzero(label == index):
            own = _Active.of(units, entries, int(column[pair]), class_of)
            yield int(pair), _measure(units, own, counts, None if thresholds is None else float(thresholds[pair]))


def pair_aurocs(
    units: SplitUnits, entries: sparse.csc_array, column: Int64[np.ndarray, " pair"], label: Int64[np.ndarray, " pair"]
) -> Float64[np.ndarray, " pair"]:
    """AUROC of pairs; see `pair_effects` for the arguments."""
    result = np.full(len(label), np.nan)
    for index, class_of in units.classes_of(np.unique(label)):
        n_positive = int(units.n_positive[:, index].sum())
        n_negative = int(units.n_negative_of(np.array([index])).sum())
        for pair in np.flatnonzero(label == index):
            wins = _Wins.of(_Active.of(units, entries, int(column[pair]), class_of).some(used=True))
            zeros = n_negative - int(wins.negatives.sum())
            won = float((wins.below + zeros)[wins.positives].sum())
            won += 0.5 * (n_positive - int(wins.positives.sum())) * zeros
            result[pair] = _share(won, float(n_positive * n_negative))
    return result


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Units of one label, also those where a latent is not active."""

    positive: Float64[np.ndarray, " video"]
    negative: Float64[np.ndarray, " video"]
    n_background: int


@dataclass(frozen=True, kw_only=True)
class _Active:
    """Where a latent is active, by ascending activation, with what a label says there."""

    unit: np.ndarray
    video: Int64[np.ndarray, " active"]
    value: Float32[np.ndarray, " active"]
    is_positive: Bool[np.ndarray, " active"]
    is_used: Bool[np.ndarray, " active"]

    @classmethod
    def of(cls, units: SplitUnits, entries: sparse.csc_array, column: int, class_of: ClassOf) -> _Active:
        latent = slice(int(entries.indptr[column]), int(entries.indptr[column + 1]))
        order = np.argsort(entries.data[latent])
        unit = entries.indices[latent][order]
        classes = class_of(unit)
        return cls(
            unit=unit,
            video=units.video[unit].astype(np.int64),
            value=entries.data[latent][order],
            is_positive=classes == POSITIVE_UNIT,
            is_used=classes != NEITHER,
        )

    def some(self, *, used: bool = False, chosen: Bool[np.ndarray, " active"] | None = None) -> _Active:
        """Positives and negatives only, or what is chosen."""
        kept = self.is_used if used else chosen
        return replace(self, **{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    def by_video(self) -> _Active:
        """The same by video, and by ascending activation within each."""
        narrow = self.video.astype(np.uint16) if self.video.max(initial=0) < 2**16 else self.video
        order = np.argsort(narrow, kind="stable")  # of 16 bits, numpy sorts in linear time
        return replace(self, **{field.name: getattr(self, field.name)[order] for field in fields(self)})


def _measure(units: SplitUnits, active: _Active, counts: _Counts, threshold: float | None) -> PairEffect:
    own = active.some(used=True)
    pooled = _Wins.of(own)
    n_videos, n_positive, n_negative = units.n_videos, counts.positive.sum(), counts.negative.sum()
    zero_negatives = n_negative - pooled.negatives.sum()
    positive_zeros = counts.positive - _per_video(own.video, own.is_positive, n_videos)
    negative_zeros = counts.negative - _per_video(own.video, ~own.is_positive, n_videos)
    wins = _per_video(own.video, np.where(pooled.positives, pooled.below + zero_negatives, 0.0), n_videos)
    wins += 0.5 * positive_zeros * zero_negatives
    losses = _per_video(own.video, np.where(pooled.negatives, pooled.above, 0.0), n_videos)
    losses += negative_zeros * (pooled.positives.sum() + 0.5 * positive_zeros.sum())

    against = _Wins.of(active.some(chosen=active.is_positive | units.background[units.row[active.unit]]))
    background_zeros = counts.n_background - int(against.negatives.sum())
    background_wins = float((against.below + background_zeros)[against.positives].sum())
    background_wins += 0.5 * float(positive_zeros.sum()) * background_zeros
    if threshold is None:
        threshold = _best_threshold(own, pooled, float(n_positive))
    return PairEffect(
        auroc=_share(float(wins.sum()), float(n_positive * n_negative)),
        auroc_background=_share(background_wins, float(n_positive) * counts.n_background),
        precision=_precision(pooled, float(n_positive), float(n_negative)),
        threshold=threshold,
        f1=_f1(own.value, own.is_positive, float(n_positive), threshold),
        within=_within(own, counts.positive, counts.negative),
        positive_wins=wins,
        negative_losses=losses,
    )


def _within(
    own: _Active, n_positive: Float64[np.ndarray, " video"], n_negative: Float64[np.ndarray, " video"]
) -> Float64[np.ndarray, " video"]:
    """AUROC within each video, from the active positives and negatives."""
    n_videos = len(n_positive)
    by_video = own.by_video()
    wins = _Wins.of(by_video, by_video.video)
    positive_zeros = n_positive - _per_video(by_video.video, wins.positives, n_videos)
    negative_zeros = n_negative - _per_video(by_video.video, wins.negatives, n_videos)
    won = _per_video(
        by_video.video, np.where(wins.positives, wins.below + negative_zeros[by_video.video], 0.0), n_videos
    )
    n_pairs = n_positive * n_negative
    return np.divide(
        won + 0.5 * positive_zeros * negative_zeros, n_pairs, out=np.full(n_videos, np.nan), where=n_pairs > 0
    )


@dataclass(frozen=True, kw_only=True)
class _Wins:
    """Active units in ascending order within their group, and how many of the other class each is above or below."""

    positives: Bool[np.ndarray, " active"]
    negatives: Bool[np.ndarray, " active"]
    below: Float64[np.ndarray, " active"]
    """Active negatives of the group below each, and half of those tied with it."""
    above: Float64[np.ndarray, " active"]
    """Active positives of the group above each, and half of those tied with it; for a single group."""
    reached: Int64[np.ndarray, "class active"]
    """Negatives and positives that reach the activation of each; for a single group."""

    @classmethod
    def of(cls, own: _Active, group: Int64[np.ndarray, " active"] | None = None) -> _Wins:
        """Count within groups, by which the units are ordered, or within all.

        Those that are not positive are the other class.
        """
        items = SortedItems.presorted(np.zeros(len(own.value), dtype=np.int64) if group is None else group, own.value)
        before, positives_before = cumulative(~own.is_positive), cumulative(own.is_positive)
        start, stop = items.tie_start, items.tie_stop
        below = 0.5 * (before[start] + before[stop])
        if group is not None:
            runs = Runs.between(group)
            below -= before[runs.start][runs.of]
        return cls(
            positives=own.is_positive,
            negatives=~own.is_positive,
            below=below,
            above=positives_before[-1] - 0.5 * (positives_before[start] + positives_before[stop]),
            reached=np.stack([before[-1] - before[start], positives_before[-1] - positives_before[start]]),
        )


def _precision(pooled: _Wins, n_positive: float, n_negative: float) -> float:
    """Mean over the positives of the precision at their activation; units with equal activation enter together."""
    false, true = pooled.reached[:, pooled.positives]
    at_zero = (n_positive - len(true)) * _share(n_positive, n_positive + n_negative)
    return _share(float((true / (true + false)).sum()) + at_zero, n_positive)


def _best_threshold(own: _Active, pooled: _Wins, n_positive: float) -> float:
    """Activation from which on calling a unit positive gives the highest F1; the lowest such one in a tie.

    Infinity where no unit of either class is active.
    """
    if not len(own.value):
        return float("inf")
    false, true = pooled.reached
    return float(own.value[np.argmax(2 * true / (false + true + n_positive))])


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
