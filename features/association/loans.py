"""What the labels of a video's units would be under other videos' annotations: the loans of a permutation.

A unit of the borrower is lent what the lender's own units say: at the lender's time step that is nearest in seconds, at
its patch that is nearest in the frame. Videos with equal grids lend unit by unit. Where the lender's clip has ended,
nothing is annotated, so that no unit is eligible. What is lent are the labels that are tested, made once per video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Integer
from scipy import sparse

from collect.tokens.grid import TokenGrid
from features.association.runs import cumulative
from features.association.split_units import POSITIVE, SPOILED, SplitUnits


@dataclass(frozen=True, kw_only=True)
class Loan:
    """Labels of one video's units under the annotations of several others."""

    eligible: Bool[np.ndarray, "lender unit"]
    positive: Int64[np.ndarray, "_ 3"]
    """(lender, unit, label) of what is positive; lenders and units count from 0."""
    spoiled: Int64[np.ndarray, "_ 3"]
    """The same of what is eligible and touched."""


class Lender:
    """Lends the labels of a split's units between its videos.

    Args:
        units: labels of all units.
        grids: of the split's videos.
    """

    def __init__(self, units: SplitUnits, grids: Sequence[TokenGrid]) -> None:
        self._units = units
        self._has_patches, is_timed = units.space.level == "token", units.space.level != "video"
        self._times = [_times_s(grid) if is_timed else np.zeros(1) for grid in grids]
        self._clock = _classes([grid.spans_s.tobytes() if is_timed else b"" for grid in grids])
        layouts = [grid.boxes.tobytes() if self._has_patches else b"" for grid in grids]
        self._layout = _classes(layouts)
        self._centres = [_centres(grid) for grid in grids]
        self._laid: dict[int, _Laid] = {}

    def loan(self, borrower: int, lenders: Int64[np.ndarray, " lender"]) -> Loan:
        """Lay the labels of some videos over the units of one, all by their ranks within the split."""
        laid = self._laid_on(borrower)
        if (self._clock[lenders] == self._clock[borrower]).all():
            step = np.arange(len(self._times[borrower]))[None, :].repeat(len(lenders), axis=0)
        else:
            step = np.stack([self._nearest_steps(borrower, int(lender)) for lender in lenders])
        present = step >= 0
        first = laid.start[lenders][:, None] + np.where(present, step, 0)
        eligible = laid.eligible[first] & present[:, :, None]
        return Loan(
            eligible=eligible.reshape(len(lenders), -1),
            positive=_taken(laid.positive, first, present),
            spoiled=_taken(laid.spoiled, first, present),
        )

    def _nearest_steps(self, borrower: int, lender: int) -> Int64[np.ndarray, " n_t"]:
        """The lender's time step for each of the borrower's; -1 where it has none within half of its spacing."""
        if self._clock[borrower] == self._clock[lender]:
            return np.arange(len(self._times[borrower]))
        own, others = self._times[borrower], self._times[lender]
        after = np.clip(np.searchsorted(others, own), 1, max(len(others) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(others) - 1)
        nearest = np.where(own - others[before] <= others[after] - own, before, after)
        reach = 0.5 * np.diff(others).max() if len(others) > 1 else np.inf
        return np.where(np.abs(own - others[nearest]) <= reach + 1e-9, nearest, -1)

    def _laid_on(self, borrower: int) -> _Laid:
        """The labels of all videos on the patches of one; videos with the same patches share them."""
        layout = int(self._layout[borrower])
        if layout not in self._laid:
            self._laid[layout] = self._lay(borrower)
        return self._laid[layout]

    def _lay(self, borrower: int) -> _Laid:
        units = self._units
        rows = [units.row[units.start[video] : units.start[video + 1]] for video in range(units.n_videos)]
        if (self._layout != self._layout[borrower]).any():
            rows = [own[self._patches(borrower, lender)] for lender, own in enumerate(rows)]
        n_patches = len(self._centres[borrower]) if self._has_patches else 1
        n_steps = [len(own) // n_patches for own in rows]
        eligible = np.empty((sum(n_steps), n_patches), dtype=bool)
        ends = np.cumsum([0, *n_steps], dtype=np.int64)
        for first, stop, own in zip(ends, ends[1:], rows, strict=False):
            eligible[first:stop] = units.eligible[own].reshape(-1, n_patches)
        return _Laid(
            start=ends[:-1],
            eligible=eligible,
            positive=_Entries.of(units.marks, POSITIVE, rows, n_patches),
            spoiled=_Entries.of(units.marks, SPOILED, rows, n_patches),
        )

    def _patches(self, borrower: int, lender: int) -> Int64[np.ndarray, " unit"]:
        """The lender's unit, counted from its first, at each of its time steps and each of the borrower's patches."""
        own, others = self._centres[borrower], self._centres[lender]
        patch = ((own[:, None, :] - others[None, :, :]) ** 2).sum(axis=-1).argmin(axis=1)
        steps = np.arange(len(self._times[lender]))
        return (steps[:, None] * len(others) + patch).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """(patch, label) of all videos, time step by time step, in the order of the patches."""

    first: Int64[np.ndarray, " step_and_end"]
    patch: Integer[np.ndarray, " entry"]
    label: Integer[np.ndarray, " entry"]
    n_patches: int

    @classmethod
    def of(cls, marks: sparse.csr_array, bit: int, rows: Sequence[Int32[np.ndarray, " _"]], n_patches: int) -> _Entries:
        """The entries with a bit of `marks` in some rows, which are those of the patches of each video's steps."""
        chosen = (marks.data & bit) > 0
        labels, start = marks.indices[chosen], cumulative(chosen)[marks.indptr]
        size = np.diff(start)
        counts = [size[own].reshape(-1, n_patches).sum(axis=1) for own in rows]
        first = np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *counts]))
        # Filled in place and narrow: of a large corpus these are by far the most numbers.
        patch, label = (np.empty(int(first[-1]), np.min_scalar_type(n)) for n in (n_patches, marks.shape[1]))
        end = 0
        for own in rows:
            count = size[own]
            begun, end = end, end + int(count.sum())
            at = np.arange(end - begun) + np.repeat(start[own] - np.cumsum(count) + count, count)
            patch[begun:end] = np.repeat(np.arange(len(own)) % n_patches, count)
            label[begun:end] = labels[at]
        return cls(first=first, patch=patch, label=label, n_patches=n_patches)


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """The labels of all videos on one layout of patches, time step by time step."""

    start: Int64[np.ndarray, " video"]
    """First time step of each video."""
    eligible: Bool[np.ndarray, "step patch"]
    positive: _Entries
    spoiled: _Entries


def _taken(
    entries: _Entries, step: Int64[np.ndarray, "lender step"], present: Bool[np.ndarray, "lender step"]
) -> Int64[np.ndarray, "entry 3"]:
    """Entries of the time steps of each lender that are there, as (lender, unit, label)."""
    lender, place = np.nonzero(present)
    start = entries.first[step[lender, place]]
    count = entries.first[step[lender, place] + 1] - start
    of = np.repeat(np.arange(len(lender)), count)
    at = np.arange(len(of)) - (np.cumsum(count) - count - start)[of]
    return np.stack([lender[of], place[of] * entries.n_patches + entries.patch[at], entries.label[at]], axis=1)


def _times_s(grid: TokenGrid) -> Float64[np.ndarray, " n_t"]:
    return grid.spans_s.mean(axis=1)


def _centres(grid: TokenGrid) -> Float64[np.ndarray, "patch 2"]:
    boxes = grid.boxes.reshape(-1, 4)
    return 0.5 * (boxes[:, :2] + boxes[:, 2:])


def _classes(keys: Sequence[bytes]) -> Int64[np.ndarray, " item"]:
    """Number of each item's class of equal keys."""
    number: dict[bytes, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
