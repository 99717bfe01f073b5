"""The order of the tokens: a pure function of (seed, epoch, pool), known before anything is read.

The rows of a token set are cut into units of 64 consecutive rows. Every epoch permutes the units by (seed, epoch) and
cuts the sequence of their rows into as many equal lanes as there are data-parallel ranks, and each lane into equal
pools of at most about half a million rows; the rows of a pool are permuted by (seed, epoch, pool). A lane's pools end
to end, epoch after epoch, are its endless sequence. Over all lanes, each epoch holds every row of the set once, except
the n mod n_lanes rows at the end of the permuted sequence, which are left out so that lanes are equal.
"""

import threading
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from train_sae.batches.token_set import TokenSet

UNIT_ROWS = 64
POOL_ROWS = 2**19


class Cursor(NamedTuple):
    """A place in a lane's sequence."""

    epoch: int
    pool: int
    position: int
    """Rows of the pool before the place."""


class PoolRows(NamedTuple):
    """The rows of one pool."""

    start: int
    """Position in the lane's epoch of the pool's first row."""
    rows: Int64[np.ndarray, " row"]
    """Rows of the store, in ascending order."""
    places: Int64[np.ndarray, " row"]
    """Where in the pool each of them goes."""

    def in_order(self) -> Int64[np.ndarray, " position"]:
        """The row of the store at each place."""
        order = np.empty_like(self.rows)
        order[self.places] = self.rows
        return order


class _LaneStretch(NamedTuple):
    """A lane's part of an epoch."""

    units: Int64[np.ndarray, " unit"]
    skipped: Int64[np.ndarray, " unit"]
    """Rows at the beginning of a unit that belong to the lane before."""
    taken: Int64[np.ndarray, " unit"]
    """Rows of the unit that belong to this lane, after the skipped ones."""
    first_units: Int64[np.ndarray, " pool"]
    """First unit of each pool."""
    starts: Int64[np.ndarray, " pool"]
    """Position in the lane's epoch of each pool's first row."""


class TokenOrder:
    """The order of a token set's rows.

    Args:
        tokens: at least one row per lane.
        seed: seed of the order.
        pool_rows: approximate number of rows that are mixed with each other.
        n_lanes: equal parts into which every epoch is cut.
    """

    def __init__(self, tokens: TokenSet, *, seed: int, pool_rows: int = POOL_ROWS, n_lanes: int = 1) -> None:
        self._seed, self._n_lanes, self._kept = seed, n_lanes, tokens.kept
        self._starts, self._stops = _units(tokens)
        self._counts = self._stops - self._starts
        if tokens.kept is not None:
            below = np.concatenate([[0], np.cumsum(tokens.kept, dtype=np.int64)])
            counts = below[self._stops] - below[self._starts]
            used = counts > 0
            self._starts, self._stops, self._counts = self._starts[used], self._stops[used], counts[used]
        self.n_tokens = int(self._counts.sum())
        """Rows of the set."""
        self.n_lane_tokens = self.n_tokens // n_lanes
        """Rows of a lane in an epoch."""
        assert self.n_lane_tokens, "there is at least one row per lane to draw from"
        self._n_pools = -(-self.n_lane_tokens // pool_rows)
        self.capacity = min(-(-self.n_lane_tokens // self._n_pools) + UNIT_ROWS, self.n_lane_tokens)
        """Most rows that a pool can have."""
        self._stretches: dict[tuple[int, int], _LaneStretch] = {}
        self._lock = threading.Lock()

    def cursor(self, position: int, lane: int = 0) -> Cursor:
        """The place after this many rows of a lane's endless sequence."""
        epoch, within = divmod(position, self.n_lane_tokens)
        starts = self._lane(epoch, lane).starts
        pool = int(np.searchsorted(starts, within, side="right")) - 1
        return Cursor(epoch, pool, within - int(starts[pool]))

    def pool(self, epoch: int, pool: int, lane: int = 0) -> PoolRows:
        """The rows of a pool, and their order."""
        stretch = self._lane(epoch, lane)
        stop = stretch.first_units[pool + 1] if pool + 1 < len(stretch.first_units) else len(stretch.units)
        inside = slice(int(stretch.first_units[pool]), int(stop))
        rising = np.argsort(stretch.units[inside])
        rows = self._rows(*(values[inside][rising] for values in (stretch.units, stretch.skipped, stretch.taken)))
        key = (self._seed, epoch, pool) if self._n_lanes == 1 else (self._seed, epoch, pool, lane)
        order = np.random.default_rng(key).permutation(len(rows))
        places = np.empty_like(order)
        places[order] = np.arange(len(rows))
        return PoolRows(start=int(stretch.starts[pool]), rows=rows, places=places)

    def _rows(
        self,
        units: Int64[np.ndarray, " unit"],
        skipped: Int64[np.ndarray, " unit"],
        taken: Int64[np.ndarray, " unit"],
    ) -> Int64[np.ndarray, " row"]:
        """The rows of some units, in ascending order."""
        rows = _concatenated(self._starts[units], self._stops[units])
        if self._kept is not None:
            rows = rows[self._kept[rows]]
        counts = self._counts[units]
        if np.array_equal(counts, taken):
            return rows
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows[(place >= np.repeat(skipped, counts)) & (place < np.repeat(skipped + taken, counts))]

    def _lane(self, epoch: int, lane: int) -> _LaneStretch:
        with self._lock:  # the thread that reads ahead also calls this
            if (epoch, lane) not in self._stretches:
                old = [key for key in self._stretches if key[1] == lane and key[0] < epoch - 1]
                for key in old:
                    del self._stretches[key]
                self._stretches[epoch, lane] = self._make_lane(epoch, lane)
            return self._stretches[epoch, lane]

    def _make_lane(self, epoch: int, lane: int) -> _LaneStretch:
        units = np.random.default_rng((self._seed, epoch)).permutation(len(self._counts))
        ends = np.cumsum(self._counts[units])
        begins = ends - self._counts[units]
        low, high = lane * self.n_lane_tokens, (lane + 1) * self.n_lane_tokens
        mine = slice(int(np.searchsorted(ends, low, side="right")), int(np.searchsorted(begins, high, side="left")))
        skipped = np.maximum(low - begins[mine], 0)
        taken = np.minimum(ends[mine], high) - begins[mine] - skipped
        positions = np.cumsum(taken) - taken
        first = np.flatnonzero(np.diff(positions * self._n_pools // self.n_lane_tokens, prepend=-1))
        return _LaneStretch(units[mine], skipped, taken, first, positions[first])


def _units(tokens: TokenSet) -> tuple[Int64[np.ndarray, " unit"], Int64[np.ndarray, " unit"]]:
    """First and one past the last row of each unit; no unit reaches past the end of its range."""
    ranges = [rows for rows in tokens.ranges if rows.stop > rows.start]
    starts = np.concatenate([np.arange(start, stop, UNIT_ROWS, dtype=np.int64) for start, stop in ranges])
    ends = np.concatenate([np.full(-(-(stop - start) // UNIT_ROWS), stop, dtype=np.int64) for start, stop in ranges])
    return starts, np.minimum(starts + UNIT_ROWS, ends)


def _concatenated(starts: Int64[np.ndarray, " run"], stops: Int64[np.ndarray, " run"]) -> Int64[np.ndarray, " row"]:
    """The numbers from each start up to its stop, one run after another."""
    lengths = stops - starts
    shifts = starts - (np.cumsum(lengths) - lengths)
    return np.arange(lengths.sum(), dtype=np.int64) + np.repeat(shifts, lengths)
