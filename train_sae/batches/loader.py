"""Shuffled batches of activations from a store, as a pure function of the seed and the step.

`order` says which row goes where; `shard_reader` puts the rows of a pool directly into their places in a buffer. So a
batch is a contiguous part of the buffer and costs nothing but the reading. Two buffers take turns: while the batches of
one pool are used, the next pool is read in the background. A batch that reaches past the end of a pool is completed
from the next one. The cursor of the loader is the step; resuming there is exact, even in the middle of an epoch.

On a CUDA device the buffers are pinned; with `resident`, whole pools are copied to the device as they arrive, and
batches are contiguous parts of device memory.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from collect.process.device import mark_work
from train_sae.batches.order import POOL_ROWS, Cursor, TokenOrder
from train_sae.batches.shard_reader import RowReader
from train_sae.batches.token_set import TokenSet

_CPU = torch.device("cpu")


@dataclass(eq=False)
class _Slot:
    """A buffer and the pool that is in it."""

    host: Shaped[Tensor, "place d_in"]
    device: Shaped[Tensor, "place d_in"] | None
    """The copy in device memory, if pools are resident there."""
    key: tuple[int, int] | None = None
    """Epoch and pool; None while empty."""
    start: int = 0
    order: Int64[np.ndarray, " position"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """The row of the store at each position."""
    pending: Future[None] | None = None

    @property
    def rows(self) -> Shaped[Tensor, "place d_in"]:
        """The tensor that batches are taken from."""
        return self.host if self.device is None else self.device


class _Lane:
    """One lane's endless sequence of rows, with two pools of it in memory."""

    def __init__(
        self, reader: RowReader, order: TokenOrder, lane: int, device: torch.device, *, resident: bool
    ) -> None:
        self._reader, self._order, self._lane = reader, order, lane
        self._shape = (order.capacity, reader.d_in)
        self._device = device
        self._slots: list[_Slot] = []
        self._stream = torch.cuda.Stream(device) if resident and device.type == "cuda" else None

    def stretch(self, position: int, wanted: int) -> Shaped[Tensor, "token d_in"]:
        """At most `wanted` rows, from a position of the sequence up to the end of the pool; a view of its buffer."""
        cursor = self._order.cursor(position, self._lane)
        slot = self._slot(cursor.epoch, cursor.pool)
        return slot.rows[cursor.position : min(cursor.position + wanted, len(slot.order))]

    def numbers(self, position: int, wanted: int) -> Int64[np.ndarray, " token"]:
        """Which rows `stretch` gives, without reading them."""
        cursor = self._order.cursor(position, self._lane)
        slot = self._find(cursor.epoch, cursor.pool)
        known = slot is not None and slot.pending is None
        order = slot.order if slot and known else self._order.pool(cursor.epoch, cursor.pool, self._lane).in_order()
        return order[cursor.position : cursor.position + wanted]

    def settle(self) -> None:
        """Cancel reading ahead, once no thread is working on it any more."""
        for slot in self._slots:
            if slot.pending is not None and (slot.pending.cancelled() or slot.pending.exception()):
                slot.key = None
            slot.pending = None

    def read_ahead(self, executor: ThreadPoolExecutor, position: int, stop: int) -> None:
        """Read the pool after the one that holds a position, unless it is there or begins beyond `stop`."""
        cursor = self._order.cursor(position, self._lane)
        current = self._find(cursor.epoch, cursor.pool)
        if current is None or any(slot.pending is not None for slot in self._slots):
            return
        following = position - cursor.position + len(current.order)
        if following >= stop:
            return
        after = self._order.cursor(following, self._lane)
        if self._find(after.epoch, after.pool) is None:
            slot = self._free(current)
            slot.key = (after.epoch, after.pool)
            slot.pending = executor.submit(self._fill, slot, mark_work(self._device))

    def _slot(self, epoch: int, pool: int) -> _Slot:
        slot = self._find(epoch, pool)
        if slot is None:
            slot = self._free(None)
            slot.key = (epoch, pool)
            try:
                self._fill(slot, mark_work(self._device))
            except BaseException:
                slot.key = None
                raise
        if slot.pending is not None:
            pending, slot.pending = slot.pending, None
            try:
                pending.result()
            except BaseException:
                slot.key = None
                raise
        return slot

    def _find(self, epoch: int, pool: int) -> _Slot | None:
        return next((slot for slot in self._slots if slot.key == (epoch, pool)), None)

    def _free(self, current: _Slot | None) -> _Slot:
        """A slot to read into: a new one up to the second, else the older one that is not in use."""
        if len(self._slots) < 2:
            host = torch.empty(self._shape, dtype=self._reader.dtype, pin_memory=self._device.type == "cuda")
            on_device = torch.empty_like(host, device=self._device) if self._stream is not None else None
            self._slots.append(_Slot(host, on_device))
            return self._slots[-1]
        slot = next(slot for slot in self._slots if slot is not current)
        if slot.pending is not None:  # read ahead for a place that was never used
            wait([slot.pending])
            slot.pending = None
        # The other slot is the newer one from now on.
        self._slots.sort(key=lambda other: other is slot)
        return slot

    def _fill(self, slot: _Slot, last_use: torch.cuda.Event | None) -> None:
        epoch, pool = cast("tuple[int, int]", slot.key)
        content = self._order.pool(epoch, pool, self._lane)
        if last_use is not None and self._stream is None:  # copies from the buffer may still be under way
            last_use.synchronize()
        self._reader.read(content.rows, content.places, slot.host)
        slot.start, slot.order = content.start, content.in_order()
        if self._stream is not None and slot.device is not None:
            if last_use is not None:
                self._stream.wait_event(last_use)
            with torch.cuda.stream(self._stream):
                slot.device[: len(slot.order)].copy_(slot.host[: len(slot.order)], non_blocking=True)
            self._stream.synchronize()


class TokenLoader:
    """Batches of a token set, in an order that depends only on the seed and the number of lanes.

    Args:
        reader: where rows come from.
        tokens: what to draw from.
        batch_size: tokens per batch, over all lanes; a multiple of `n_lanes`.
        seed: seed of the order.
        pool_rows: rows that are mixed with each other; two pools per lane are in memory.
        n_lanes: equal parts into which the sequence is cut: the number of data-parallel ranks.
        lanes: the lanes that this loader reads; all of them if None.
        device: where batches are used; decides whether buffers are pinned.
        resident: whether to keep the pools in the device's memory.
    """

    def __init__(
        self,
        reader: RowReader,
        tokens: TokenSet,
        *,
        batch_size: int,
        seed: int,
        pool_rows: int = POOL_ROWS,
        n_lanes: int = 1,
        lanes: Sequence[int] | None = None,
        device: torch.device = _CPU,
        resident: bool = False,
    ) -> None:
        assert batch_size % n_lanes == 0, "every lane gives the same number of tokens to a batch"
        self.order = TokenOrder(tokens, seed=seed, pool_rows=pool_rows, n_lanes=n_lanes)
        """Which row goes where."""
        self.batch_size = batch_size
        """Tokens per step, over all lanes."""
        self.n_lanes = n_lanes
        """Parts into which every batch is cut."""
        self._lane_size = batch_size // n_lanes
        self._lanes = [
            _Lane(reader, self.order, lane, device, resident=resident)
            for lane in (range(n_lanes) if lanes is None else lanes)
        ]

    @property
    def n_tokens(self) -> int:
        """Tokens of an epoch, over all lanes."""
        return self.order.n_tokens

    def batch(self, step: int) -> Float[Tensor, "token d_in"]:
        """The batch of a step, in the store's dtype; it may be overwritten when a later one is asked for.

        Args:
            step: number of batches before this one.
        """
        parts: list[Tensor] = []
        for lane in self._lanes:
            position, wanted = step * self._lane_size, self._lane_size
            while wanted:
                part = lane.stretch(position, wanted)
                # A buffer whose end was reached may be refilled before the batch is complete.
                parts.append(part if len(part) == self._lane_size else part.clone())
                position, wanted = position + len(part), wanted - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def rows(self, step: int) -> Int64[np.ndarray, " token"]:
        """Which rows of the store the batch of a step holds."""
        parts: list[np.ndarray] = []
        for lane in self._lanes:
            position, wanted = step * self._lane_size, self._lane_size
            while wanted:
                parts.append(lane.numbers(position, wanted))
                position, wanted = position + len(parts[-1]), wanted - len(parts[-1])
        return np.concatenate(parts)

    def cursor(self, step: int) -> Cursor:
        """Where the batch of a step begins, in its first lane."""
        return self.order.cursor(step * self._lane_size)

    def batches(self, start: int, stop: int) -> Iterator[Float[Tensor, "token d_in"]]:
        """Yield the batches of the steps from start up to stop, and read ahead.

        A batch may be overwritten once the next one is asked for.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        try:
            for step in range(start, stop):
                batch = self.batch(step)
                for lane in self._lanes:
                    # From the last row of this batch on: until then the pool of its first rows may be needed again.
                    lane.read_ahead(executor, (step + 1) * self._lane_size - 1, stop * self._lane_size)
                yield batch
        finally:
            executor.shutdown(cancel_futures=True)
            for lane in self._lanes:
                lane.settle()

    def sample(self, limit: int) -> Iterator[Float[Tensor, "token d_in"]]:
        """Yield the first tokens of the sequence: a random sample without repetition, or all tokens if they are fewer.

        Args:
            limit: most tokens to yield.
        """
        assert self.n_lanes == 1, "lanes end before a batch is full"
        left = min(limit, self.n_tokens)
        for batch in self.batches(0, -(-left // self.batch_size)):
            yield batch[:left]
            left -= batch.shape[0]
