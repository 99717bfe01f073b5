"""What the labels of a video's units would be under other videos' annotations: the loans of a permutation.

A unit of the borrower is lent what the lender's own units say: at the lender's time step that is nearest in seconds, at
its patch that is nearest in the frame. Videos with equal grids lend unit by unit. Where the lender's clip has ended,
nothing is annotated, so that no unit is eligible. What is lent are the labels that are tested, made once per video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64
from scipy import sparse

from collect.tokens.grid import TokenGrid
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
        n_steps, n_patches = len(self._times[borrower]), laid.n_patches
        if (self._clock[lenders] == self._clock[borrower]).all():
            # All time steps of a lender in one piece.
            first = laid.start[lenders][:, None]
            size, present = n_steps * n_patches, np.ones((len(lenders), 1), dtype=bool)
        else:
            step = np.stack([self._nearest_steps(borrower, int(lender)) for lender in lenders])
            first, present = laid.start[lenders][:, None] + step * n_patches, step >= 0
            size = n_patches
        rows = np.where(present, first, 0)[:, :, None] + np.arange(size)
        eligible = laid.eligible[rows] & present[:, :, None]
        return Loan(
            eligible=eligible.reshape(len(lenders), -1),
            positive=_taken(laid.positive, first, present, size),
            spoiled=_taken(laid.spoiled, first, present, size),
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
        marks, eligible, start = units.marks, units.eligible, units.start[:-1]
        if (self._layout != self._layout[borrower]).any():
            parts = [self._rows(borrower, lender) for lender in range(units.n_videos)]
            rows = np.concatenate(parts)
            start = np.cumsum([0, *map(len, parts[:-1])], dtype=np.int64)
            marks, eligible = sparse.csr_array(marks[rows]), eligible[rows]
        return _Laid(
            n_patches=len(self._centres[borrower]) if self._has_patches else 1,
            start=start,
            eligible=eligible,
            positive=_Entries.of(marks, POSITIVE),
            spoiled=_Entries.of(marks, SPOILED),
        )

    def _rows(self, borrower: int, lender: int) -> Int64[np.ndarray, " unit"]:
        """The lender's unit at each of its time steps and each of the borrower's patches."""
        own, others = self._centres[borrower], self._centres[lender]
        patch = ((own[:, None, :] - others[None, :, :]) ** 2).sum(axis=-1).argmin(axis=1)
        steps = np.arange(len(self._times[lender]))
        return self._units.start[lender] + (steps[:, None] * len(others) + patch).reshape(-1)


@dataclass(frozen=True, kw_only=True)
class _Entries:
    """(unit, label) in the order of the units."""

    indptr: Int[np.ndarray, " unit_and_end"]
    unit: Int32[np.ndarray, " entry"]
    label: Int32[np.ndarray, " entry"]

    @classmethod
    def of(cls, marks: sparse.csr_array, bit: int) -> _Entries:
        chosen = (marks.data & bit) > 0
        unit = np.repeat(np.arange(marks.shape[0], dtype=np.int32), np.diff(marks.indptr))[chosen]
        narrow = np.int32 if len(chosen) < 2**31 else np.int64
        indptr = np.concatenate([np.zeros(1, dtype=narrow), np.cumsum(chosen, dtype=narrow)])[marks.indptr]
        return cls(indptr=indptr, unit=unit, label=marks.indices[chosen].astype(np.int32))


@dataclass(frozen=True, kw_only=True)
class _Laid:
    """The labels of all videos on one layout of patches, time step by time step."""

    n_patches: int
    start: Int64[np.ndarray, " video"]
    """First row of each video."""
    eligible: Bool[np.ndarray, " row"]
    positive: _Entries
    spoiled: _Entries


def _taken(
    entries: _Entries, first: Int64[np.ndarray, "lender piece"], present: Bool[np.ndarray, "lender piece"], size: int
) -> Int64[np.ndarray, "entry 3"]:
    """Entries of the pieces [first, first + size) of rows, as (lender, unit, label)."""
    lender, piece = np.nonzero(present)
    row = first[lender, piece]
    start = entries.indptr[row]
    count = entries.indptr[row + size] - start
    of = np.repeat(np.arange(len(row)), count)
    at = np.arange(len(of)) - (np.cumsum(count) - count - start)[of]
    unit = entries.unit[at] - (row - piece * size)[of]
    return np.stack([lender[of], unit, entries.label[at]], axis=1)


def _times_s(grid: TokenGrid) -> Float64[np.ndarray, " n_t"]:
    return grid.spans_s.mean(axis=1)


def _centres(grid: TokenGrid) -> Float64[np.ndarray, "patch 2"]:
    boxes = grid.boxes.reshape(-1, 4)
    return 0.5 * (boxes[:, :2] + boxes[:, 2:])


def _classes(keys: Sequence[bytes]) -> Int64[np.ndarray, " item"]:
    """Number of each item's class of equal keys."""
    number: dict[bytes, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
