"""Labels of units as sparse indicators: what is positive for a name, what is touched by it, what may be negative.

A label lives in a *space* (kind, level). In every space a unit is positive for a label or *touched* by it without being
positive, and *eligible* if it could serve as a negative at all:

    negative = eligible and not touched
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy import sparse

MIN_COVER = 0.5
"""Share of a patch that a box must cover, or share of a frame span that a segment must overlap, for a positive."""


class Space(NamedTuple):
    """What is labelled (such as object, action, place) and on which units (token, frame)."""

    kind: str
    level: str


@dataclass(frozen=True, kw_only=True)
class UnitLabels:
    """Labels of consecutive units in one space."""

    names: tuple[str, ...]
    positive: sparse.csr_array
    """Bool [unit, label]."""
    touched: sparse.csr_array
    """Bool [unit, label]; includes the positive ones."""
    hidden: sparse.csr_array
    """Bool [unit, label]: positive only through objects that are hidden at that time."""
    eligible: Bool[np.ndarray, " unit"]
    background: Bool[np.ndarray, " unit"]

    @property
    def row(self) -> Int32[np.ndarray, " unit"] | None:
        """Row of `by_row` that each unit has; None where every unit has its own."""
        return None

    @property
    def by_row(self) -> UnitLabels:
        """The same labels with units that have the same ones joined, where these are known."""
        return self

    def masks(self, label: int) -> tuple[Bool[np.ndarray, " unit"], Bool[np.ndarray, " unit"]]:
        """Positive and negative units of a label."""
        positive = _column(self.positive, label)
        return positive, self.eligible & ~_column(self.touched, label)

    def select(self, units: Int64[np.ndarray, " unit"], labels: Sequence[int] | None = None) -> UnitLabels:
        """Labels of some units (in that order), and of all or some names."""
        columns = list(range(len(self.names))) if labels is None else list(labels)
        return UnitLabels(
            names=tuple(self.names[column] for column in columns),
            positive=self.positive[units][:, columns],
            touched=self.touched[units][:, columns],
            hidden=self.hidden[units][:, columns],
            eligible=self.eligible[units],
            background=self.background[units],
        )


@dataclass(frozen=True, kw_only=True)
class VideoLabels:
    """Labels of one video's units in one space, as (unit, label) index pairs."""

    n_units: int
    positive: Int64[np.ndarray, "_ 2"]
    touched: Int64[np.ndarray, "_ 2"]
    hidden: Int64[np.ndarray, "_ 2"]
    eligible: Bool[np.ndarray, " unit"]
    background: Bool[np.ndarray, " unit"]


@dataclass(frozen=True, kw_only=True)
class Carrier:
    """What carries one or several names in a video: a track, a segment, a part of either."""

    names: tuple[str, ...]
    degree: Float64[np.ndarray, " unit"]
    """Share of each unit that it takes: `MIN_COVER` and more is positive, anything above 0 touches."""
    hidden: Bool[np.ndarray, " unit"] | None = None
    """Units at which it is hidden; None if it nowhere is."""


def collect_labels(
    names: Sequence[str],
    carriers: Iterable[Carrier],
    *,
    eligible: Bool[np.ndarray, " unit"],
    background: Bool[np.ndarray, " unit"] | None = None,
) -> VideoLabels:
    """Join the carriers of each name: a unit has a name to the highest degree of any of its carriers.

    Args:
        names: the names that are labelled; others that carriers have are left out.
        carriers: what has the names.
        eligible: units that may be negatives.
        background: units that are reported separately; none if not given.
    """
    index_of = {name: index for index, name in enumerate(names)}
    known = [(carrier, [index_of[name] for name in carrier.names if name in index_of]) for carrier in carriers]
    known = [(carrier, own) for carrier, own in known if own]
    n_units = len(eligible)
    degree = np.stack([carrier.degree for carrier, _ in known]) if known else np.zeros((0, n_units))
    pairs = [(label, row) for row, (_, own) in enumerate(known) for label in own]
    has = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    is_on = degree >= MIN_COVER
    positive = _entries(has, is_on)
    hidden = np.empty((0, 2), dtype=np.int64)
    if any(carrier.hidden is not None for carrier, _ in known):
        aside = np.stack([is_on[0] & False if carrier.hidden is None else carrier.hidden for carrier, _ in known])
        seen = _entries(has, is_on & ~aside)
        hidden = positive[~np.isin(positive @ [1, n_units], seen @ [1, n_units])]
    return VideoLabels(
        n_units=n_units,
        positive=positive,
        touched=_entries(has, degree > 0),
        hidden=hidden,
        eligible=eligible,
        background=np.zeros(n_units, dtype=bool) if background is None else background,
    )


def stack(parts: Sequence[VideoLabels], names: tuple[str, ...]) -> UnitLabels:
    """Labels of several videos in a row."""
    n_units = sum(part.n_units for part in parts)
    offsets = np.cumsum([0, *(part.n_units for part in parts)])

    def join(entries: Sequence[Int64[np.ndarray, "_ 2"]]) -> sparse.csr_array:
        # Filled in place and narrow: of a large corpus these are by far the most numbers.
        unit, label = (np.empty(sum(map(len, entries)), dtype=np.int32) for _ in range(2))
        start = 0
        for own, offset in zip(entries, offsets, strict=False):
            stop = start + len(own)
            unit[start:stop], label[start:stop] = own[:, 0] + offset, own[:, 1]
            start = stop
        return sparse.csr_array((np.ones(len(unit), dtype=bool), (unit, label)), (n_units, len(names)))

    none = np.empty(0, dtype=bool)
    return UnitLabels(
        names=names,
        positive=join([part.positive for part in parts]),
        touched=join([part.touched for part in parts]),
        hidden=join([part.hidden for part in parts]),
        eligible=np.concatenate([none, *(part.eligible for part in parts)]),
        background=np.concatenate([none, *(part.background for part in parts)]),
    )


def _entries(has: Int64[np.ndarray, "pair 2"], mask: Bool[np.ndarray, "carrier unit"]) -> Int64[np.ndarray, "entry 2"]:
    """Units and labels, by label and then unit, of what some carrier has; `has` are the labels of the carriers."""
    carrier, unit = np.nonzero(mask)
    start = np.searchsorted(carrier, np.arange(len(mask) + 1))
    n_own = np.diff(start)[has[:, 1]]
    before = np.cumsum(n_own) - n_own
    place = np.arange(int(n_own.sum())) + np.repeat(start[has[:, 1]] - before, n_own)
    key = np.unique(np.repeat(has[:, 0], n_own) * mask.shape[1] + unit[place])
    return np.stack([key % mask.shape[1], key // mask.shape[1]], axis=1)


def _column(matrix: sparse.csr_array, label: int) -> Bool[np.ndarray, " unit"]:
    return np.asarray(matrix[:, [label]].todense(), dtype=bool).reshape(-1)
