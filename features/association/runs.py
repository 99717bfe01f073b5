"""Sorted items and their runs of equal neighbours: what ranks of sparse activations are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of equal neighbours."""

    start: Int64[np.ndarray, " run"]
    stop: Int64[np.ndarray, " run"]
    of: Int64[np.ndarray, " item"]
    """Run of each item."""

    @classmethod
    def between(cls, items: Int64[np.ndarray, " item"]) -> Runs:
        """The runs of some items."""
        is_first = np.ones(len(items), dtype=bool)
        is_first[1:] = items[1:] != items[:-1]
        return cls.from_first(is_first)

    @classmethod
    def from_first(cls, is_first: Bool[np.ndarray, " item"]) -> Runs:
        """The runs that begin where it is said."""
        start = np.flatnonzero(is_first)
        return cls(start=start, stop=np.append(start, len(is_first))[1:], of=np.cumsum(is_first) - 1)

    def total(self, values: Float64[np.ndarray, " item"]) -> Float64[np.ndarray, " run"]:
        """Sum of each run."""
        return np.add.reduceat(values, self.start) if len(self.start) else values


@dataclass(frozen=True, kw_only=True)
class SortedItems:
    """Items in ascending order of (key, value)."""

    order: Int64[np.ndarray, " item"]
    key: Int64[np.ndarray, " item"]
    """Sorted."""
    tie_start: Int64[np.ndarray, " item"]
    """First place with the same key and value."""
    tie_stop: Int64[np.ndarray, " item"]
    """One past the last of these."""

    @classmethod
    def by(cls, key: Int64[np.ndarray, " item"], value: Int64[np.ndarray, " item"]) -> SortedItems:
        """Sort by two keys that fit 31 and 32 bits: one integer holds both, which is a single, fast sort."""
        assert not len(key) or key.max() < 2**31, "too many latents at once"
        joint = (key << 32) | value
        order = np.argsort(joint)
        joint = joint[order]
        ties = Runs.between(joint)
        return cls(order=order, key=joint >> 32, tie_start=ties.start[ties.of], tie_stop=ties.stop[ties.of])

    @classmethod
    def presorted(cls, key: Int64[np.ndarray, " item"], value: Float32[np.ndarray, " item"]) -> SortedItems:
        """Items that are in this order."""
        is_first = np.ones(len(key), dtype=bool)
        is_first[1:] = (key[1:] != key[:-1]) | (value[1:] != value[:-1])
        ties = Runs.from_first(is_first)
        return cls(order=np.arange(len(key)), key=key, tie_start=ties.start[ties.of], tie_stop=ties.stop[ties.of])


def sortable(activations: Float32[np.ndarray, " item"]) -> Int64[np.ndarray, " item"]:
    """Whole numbers that sort as positive activations do: their bits."""
    return activations.view(np.uint32).astype(np.int64)


def cumulative(mask: Bool[np.ndarray, " item"]) -> Int64[np.ndarray, " item_and_end"]:
    """How many are marked before each place."""
    total = np.zeros(len(mask) + 1, dtype=np.int64)
    np.cumsum(mask, out=total[1:])
    return total
