"""Shuffled batches of activations from a store, as a pure function of the seed and the step.

The tokens of the train videos are cut into units of 64 consecutive rows. Every epoch permutes the units by (seed,
epoch), groups them into pools, and permutes the rows of each pool by (seed, epoch, pool). The pools laid end to end,
epoch after epoch, are one endless sequence in which each epoch holds every token once; the batch of step s is the
sequence from s × batch_size on. So the cursor of the loader is the step, and resuming there is exact.

A store whose train rows fit into memory is read once; a larger one is read pool by pool, the next one in the
background. Both give the same batches. Which rows are read is decided by the caller: this module never sees labels.

Not covered yet: reading shard files directly, several ranks.
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

UNIT_ROWS = 64
POOL_ROWS = 2**19
RESIDENT_BYTES = 2 * 2**30
_READ_ROWS = 2**14


@runtime_checkable
class TokenSource(Protocol):
    """The part of `collect.store.ActivationStore` that the loader needs."""

    def read(self, site: str, start: int, stop: int) -> Tensor:
        """Rows from start up to stop of a site, in its own dtype."""
        ...


@runtime_checkable
class VideoRows(Protocol):
    """The part of `collect.store.VideoRecord` that a split by video needs."""

    @property
    def video_id(self) -> str:
        """The video's id."""
        ...

    @property
    def row_start(self) -> int:
        """First row of the video."""
        ...

    @property
    def row_stop(self) -> int:
        """One past the last row of the video."""
        ...


class RowRange(NamedTuple):
    """Consecutive rows of a store."""

    start: int
    stop: int


@dataclass(frozen=True)
class VideoSplit:
    """The rows of a store, by the side of the split that their video is on."""

    train: tuple[RowRange, ...]
    held_out: tuple[RowRange, ...]


def split_by_video(videos: Sequence[VideoRows], held_out: Collection[str]) -> VideoSplit:
    """Divide a store's rows so that no video is on both sides.

    Args:
        videos: the videos of the store.
        held_out: ids of the held-out ones.
    """
    train, apart = list[RowRange](), list[RowRange]()
    for video in videos:
        (apart if video.video_id in held_out else train).append(RowRange(video.row_start, video.row_stop))
    return VideoSplit(train=tuple(train), held_out=tuple(apart))


def n_rows(ranges: Sequence[RowRange]) -> int:
    """Number of rows in all the ranges."""
    return sum(rows.stop - rows.start for rows in ranges)


def _read_in_order(source: TokenSource, site: str, ranges: Sequence[RowRange]) -> Iterator[Tensor]:
    """Yield the rows of the ranges in store order, a bounded number at a time."""
    for start, stop in _merged(ranges):
        for at in range(start, stop, _READ_ROWS):
            yield source.read(site, at, min(at + _READ_ROWS, stop))


class _Pool(NamedTuple):
    """A stretch of an epoch's sequence."""

    start: int
    """Position of its first row in the epoch."""
    rows: Tensor
    """Rows in memory."""
    order: Int[Tensor, " position"]
    """Which of `rows` stands at each position of the stretch."""


class _Plan(NamedTuple):
    """The pools of an epoch."""

    units: list[np.ndarray]
    """Units of each pool."""
    starts: np.ndarray
    """Position in the epoch of each pool's first row."""


class TokenLoader:
    """Batches of the rows in `ranges`, in an order that depends on nothing but the seed.

    Args:
        source: the store.
        site: hook site to read.
        ranges: rows to draw from, disjoint.
        batch_size: tokens a batch.
        seed: seed of the order.
        pool_rows: rows that are mixed with each other; two pools are in memory at a time.
        resident_bytes: the rows are kept in memory if they take at most so much.
    """

    def __init__(
        self,
        source: TokenSource,
        site: str,
        ranges: Sequence[RowRange],
        *,
        batch_size: int,
        seed: int,
        pool_rows: int = POOL_ROWS,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self.n_tokens = n_rows(ranges)
        assert self.n_tokens, "there is at least one row to draw from"
        self._source, self._site, self._ranges = source, site, tuple(sorted(ranges))
        self._batch_size, self._seed, self._pool_rows = batch_size, seed, pool_rows
        self._unit_starts, self._unit_stops = _units(self._ranges)
        lengths = self._unit_stops - self._unit_starts
        self._resident_starts = np.cumsum(lengths) - lengths
        self._resident: Tensor | None = None
        first = source.read(site, self._ranges[0].start, self._ranges[0].start + 1)
        self._keep = self.n_tokens * first.shape[1] * first.element_size() <= resident_bytes
        self._cache: dict[tuple[int, int], _Pool] = {}
        self._pending: tuple[tuple[int, int], Future[_Pool]] | None = None
        self._plans: dict[int, _Plan] = {}

    def batch(self, step: int) -> Float[Tensor, "token d_in"]:
        """The batch of a step, in the store's dtype.

        Args:
            step: number of batches before this one.
        """
        parts: list[Tensor] = []
        position, wanted = step * self._batch_size, self._batch_size
        while wanted:
            epoch, within = divmod(position, self.n_tokens)
            pool = self._pool(epoch, within)
            order = pool.order[within - pool.start : within - pool.start + wanted]
            parts.append(pool.rows.index_select(0, order))
            position, wanted = position + order.numel(), wanted - order.numel()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def batches(self, start: int, stop: int) -> Iterator[Float[Tensor, "token d_in"]]:
        """Yield the batches of the steps from start up to stop, and read ahead."""
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as executor:
            try:
                for step in range(start, stop):
                    yield self.batch(step)
                    self._read_ahead(executor, (step + 1) * self._batch_size, stop * self._batch_size)
            finally:
                self._pending = None

    def sample(self, limit: int) -> Iterator[Float[Tensor, "token d_in"]]:
        """Yield the first tokens of the sequence: a random sample without repetition, or all tokens if they are fewer.

        Args:
            limit: most tokens to yield.
        """
        left = min(limit, self.n_tokens)
        for batch in self.batches(0, -(-left // self._batch_size)):
            yield batch[:left]
            left -= batch.shape[0]

    def _pool(self, epoch: int, within: int) -> _Pool:
        """The pool that holds a position of an epoch."""
        key = (epoch, self._pool_index(epoch, within))
        if key not in self._cache:
            if self._pending is not None and self._pending[0] == key:
                pool = self._pending[1].result()
                self._pending = None
            else:
                pool = self._load(*key)
            self._cache = {key: pool}
        return self._cache[key]

    def _read_ahead(self, executor: ThreadPoolExecutor, position: int, end: int) -> None:
        """Start reading the pool behind the one that holds a position of the sequence, unless it is beyond the end."""
        if self._keep or self._pending is not None:
            return
        epoch, within = divmod(position, self.n_tokens)
        pool = self._cache.get((epoch, self._pool_index(epoch, within)))
        if pool is None:
            return
        following = epoch * self.n_tokens + pool.start + pool.order.numel()
        if following < end:
            epoch, within = divmod(following, self.n_tokens)
            key = (epoch, self._pool_index(epoch, within))
            self._pending = (key, executor.submit(self._load, *key))

    def _plan(self, epoch: int) -> _Plan:
        # The background thread may ask for the next epoch while this one is in use: neither may evict the other's.
        plan = self._plans.get(epoch)
        if plan is None:
            units = np.random.default_rng((self._seed, epoch)).permutation(len(self._unit_starts))
            lengths = (self._unit_stops - self._unit_starts)[units]
            positions = np.cumsum(lengths) - lengths
            first = np.flatnonzero(np.diff(positions // self._pool_rows, prepend=-1))
            plan = _Plan(units=np.split(units, first[1:]), starts=positions[first])
            self._plans = {epoch: plan, **{other: kept for other, kept in self._plans.items() if other == epoch - 1}}
        return plan

    def _pool_index(self, epoch: int, within: int) -> int:
        return int(np.searchsorted(self._plan(epoch).starts, within, side="right")) - 1

    def _load(self, epoch: int, index: int) -> _Pool:
        plan = self._plan(epoch)
        units = np.sort(plan.units[index])
        begins, ends = self._unit_starts[units], self._unit_stops[units]
        order = np.random.default_rng((self._seed, epoch, index)).permutation(int((ends - begins).sum()))
        if self._keep:
            rows = self._resident_rows()
            offsets = self._resident_starts[units]
            order = _concatenated(offsets, offsets + ends - begins)[order]
        else:
            wanted = [RowRange(int(a), int(b)) for a, b in zip(begins, ends, strict=True)]
            rows = torch.cat(list(_read_in_order(self._source, self._site, wanted)))
        return _Pool(start=int(plan.starts[index]), rows=rows, order=torch.from_numpy(order))

    def _resident_rows(self) -> Tensor:
        if self._resident is None:
            parts: list[Tensor] = []
            with tqdm(total=self.n_tokens, desc="read", unit="token", unit_scale=True, delay=2) as progress:
                for part in _read_in_order(self._source, self._site, self._ranges):
                    parts.append(part)
                    progress.update(len(part))
            self._resident = torch.cat(parts)
        return self._resident


def _units(ranges: Sequence[RowRange]) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last row of each unit; no unit reaches over the end of its range."""
    starts = np.concatenate([np.arange(start, stop, UNIT_ROWS, dtype=np.int64) for start, stop in ranges])
    ends = np.concatenate([np.full(-(-(stop - start) // UNIT_ROWS), stop, dtype=np.int64) for start, stop in ranges])
    return starts, np.minimum(starts + UNIT_ROWS, ends)


def _merged(ranges: Sequence[RowRange]) -> Iterator[RowRange]:
    """Yield the ranges in order, adjacent ones as one."""
    held: RowRange | None = None
    for rows in sorted(ranges):
        if held is not None and held.stop == rows.start:
            held = RowRange(held.start, rows.stop)
            continue
        if held is not None:
            yield held
        held = rows
    if held is not None:
        yield held


def _concatenated(starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """The numbers from each start up to its stop, one run behind the other."""
    lengths = stops - starts
    shifts = starts - (np.cumsum(lengths) - lengths)
    return np.arange(lengths.sum(), dtype=np.int64) + np.repeat(shifts, lengths)
