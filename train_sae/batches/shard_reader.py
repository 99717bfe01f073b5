"""Rows of a store directly from its shard files into the places where they are needed.

One vectored read (`preadv`) per run of neighbouring rows in a chunk: the kernel itself puts each row into its place in
the reader's buffer, so shuffling costs no second copy in memory. Several threads read at a time. A chunk's checksum is
verified when the first of its rows is read, by reading the whole chunk; after that its rows are trusted.

Files are opened for each run of rows and closed after it, so a store of any size needs few open files.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, runtime_checkable

import google_crc32c
import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from collect.artefact.inside import open_regular
from collect.process.machine import usable_cpus
from collect.store.shards import CRC_BYTES, Shard, damaged_shard

_MAX_VECTORS = 1024
"""Buffers that one `preadv` takes (IOV_MAX of Linux)."""
_BLOCK_PIECES = 128
"""Runs of rows that a thread takes at a time."""


@runtime_checkable
class RowReader(Protocol):
    """Where the loader gets rows from."""

    @property
    def d_in(self) -> int:
        """Width of a row."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows."""
        ...

    def read(
        self, rows: Int64[np.ndarray, " row"], places: Int64[np.ndarray, " row"], out: Shaped[Tensor, "place d_in"]
    ) -> None:
        """Put row rows[i] into out[places[i]]; `rows` rise."""
        ...


class _Pieces(NamedTuple):
    """Runs of neighbouring rows, each within one chunk."""

    first: Int64[np.ndarray, " piece"]
    """Index into `rows` of each run's first row."""
    n_rows: Int64[np.ndarray, " piece"]
    chunk: Int64[np.ndarray, " piece"]
    within: Int64[np.ndarray, " piece"]
    """Rows of the chunk before the run."""


class ShardReader:
    """Reads the rows of one site.

    Args:
        shards: `ActivationStore.shards(site)`.
        dtype: `ActivationStore.dtype(site)`.
        verify: whether to verify each chunk's checksum once.
        threads: threads that read at a time; if None, as many as the machine has processors, but at most four.
    """

    def __init__(
        self, shards: Sequence[Shard], dtype: torch.dtype, *, verify: bool = True, threads: int | None = None
    ) -> None:
        assert shards, "a store with rows has shards"
        self._shards = list(shards)
        self._row_bytes, self._chunk_rows = shards[0].row_bytes, shards[0].chunk_rows
        self._dtype = dtype
        counts = [len(shard.chunk_offsets) for shard in shards]
        self._shard_of = np.repeat(np.arange(len(shards)), counts)
        self._first_rows = np.concatenate(
            [shard.row_start + self._chunk_rows * np.arange(len(shard.chunk_offsets)) for shard in shards]
        )
        self._offsets = np.concatenate([shard.chunk_offsets for shard in shards]).astype(np.int64)
        self._committed = np.concatenate(
            [
                np.full(n, -1) if shard.chunk_crcs is None else shard.chunk_crcs.astype(np.int64)
                for n, shard in zip(counts, shards, strict=True)
            ]
        )
        self._unverified = np.full(len(self._offsets), verify)
        self._threads = threads or min(4, usable_cpus())
        self._executor: ThreadPoolExecutor | None = None
        self._scratch = threading.local()

    @property
    def d_in(self) -> int:
        """Width of a row."""
        return self._row_bytes // self._dtype.itemsize

    @property
    def dtype(self) -> torch.dtype:
        """Type of the rows."""
        return self._dtype

    def read(
        self, rows: Int64[np.ndarray, " row"], places: Int64[np.ndarray, " row"], out: Shaped[Tensor, "place d_in"]
    ) -> None:
        """Put row rows[i] of the store into out[places[i]].

        Args:
            rows: rows of the store, each more than the one before.
            places: where they go, all different.
            out: contiguous, on the CPU, of the reader's type.

        Raises:
            UserError: a shard is missing, cut short, or fails a checksum.
        """
        assert out.is_contiguous()
        assert (out.dtype, out.shape[1]) == (self._dtype, self.d_in)
        pieces = self._pieces(rows)
        vectors = np.empty((len(rows), 2), dtype=np.uint64)
        vectors[:, 0] = out.data_ptr() + places * self._row_bytes
        vectors[:, 1] = self._row_bytes
        raw = out.view(torch.uint8).numpy()

        def work(start: int) -> None:
            self._read_block(
                _Pieces(*(values[start : start + _BLOCK_PIECES] for values in pieces)), vectors, places, raw
            )

        starts = range(0, len(pieces.first), _BLOCK_PIECES)
        if len(starts) < 2 or self._threads == 1:
            for start in starts:
                work(start)
            return
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="read")
        list(self._executor.map(work, starts))

    def _pieces(self, rows: Int64[np.ndarray, " row"]) -> _Pieces:
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        first = np.concatenate([[0], breaks])
        count = np.diff(np.concatenate([first, [len(rows)]]))
        begin, end = rows[first], rows[first] + count
        low = np.searchsorted(self._first_rows, begin, side="right") - 1
        high = np.searchsorted(self._first_rows, end - 1, side="right") - 1
        n_chunks = high - low + 1
        run = np.repeat(np.arange(len(first)), n_chunks)
        chunk = np.arange(len(run)) - np.repeat(np.cumsum(n_chunks) - n_chunks, n_chunks) + low[run]
        start = np.maximum(begin[run], self._first_rows[chunk])
        stop = np.minimum(end[run], self._first_rows[chunk] + self._chunk_rows)
        return _Pieces(first[run] + start - begin[run], stop - start, chunk, start - self._first_rows[chunk])

    def _read_block(
        self,
        pieces: _Pieces,
        vectors: Shaped[np.ndarray, "row 2"],
        places: Int64[np.ndarray, " row"],
        out: Shaped[np.ndarray, "place byte"],
    ) -> None:
        preadv, address, row_bytes = _system_preadv(), vectors.ctypes.data, self._row_bytes
        shards = self._shard_of[pieces.chunk].tolist()
        offsets = (self._offsets[pieces.chunk] + pieces.within * row_bytes).tolist()
        unverified = self._unverified[pieces.chunk].tolist()
        opened, descriptor = -1, -1
        try:
            for first, count, chunk, within, shard, offset, check in zip(
                *(values.tolist() for values in pieces), shards, offsets, unverified, strict=True
            ):
                if shard != opened:
                    if descriptor >= 0:
                        os.close(descriptor)
                    opened, descriptor = shard, -1
                    descriptor = open_regular(self._shards[shard].path)
                is_plain = not check and count <= _MAX_VECTORS
                if is_plain and preadv(descriptor, address + 16 * first, count, offset) == count * row_bytes:
                    continue
                # Either it must be verified, or the read was interrupted or refused: this read completes it or says
                # what is wrong.
                content = self._chunk(descriptor, chunk, check=check)
                out[places[first : first + count]] = content[within : within + count]
        except OSError as error:
            raise damaged_shard(self._shards[opened].path, error.strerror or "it cannot be read") from None
        finally:
            if descriptor >= 0:
                os.close(descriptor)

    def _chunk(self, descriptor: int, chunk: int, *, check: bool) -> Shaped[np.ndarray, "row byte"]:
        """Read a whole chunk and, if wanted, verify its checksum; this thread's next call overwrites it."""
        shard = self._shards[int(self._shard_of[chunk])]
        offset, n_read = int(self._offsets[chunk]), 0
        raw = self._buffer()
        while n_read < len(raw):
            n_now = os.preadv(descriptor, [raw[n_read:].data], offset + n_read)
            if not n_now:
                raise damaged_shard(shard.path, f"it ends within its chunk at byte {offset}")
            n_read += n_now
        content = raw[:-CRC_BYTES]
        if check:
            crc, committed = google_crc32c.value(content), int(self._committed[chunk])
            if crc != int.from_bytes(raw[-CRC_BYTES:].tobytes(), "little"):
                raise damaged_shard(shard.path, f"its chunk at byte {offset} fails its checksum")
            if committed not in (-1, crc):
                raise damaged_shard(
                    shard.path, f"its chunk at byte {offset} is whole, but not the one that was committed"
                )
            self._unverified[chunk] = False
        return content.reshape(self._chunk_rows, self._row_bytes)

    def _buffer(self) -> UInt8[np.ndarray, " byte"]:
        """This thread's buffer for one chunk; new memory for each chunk would cost more than the reading."""
        if not hasattr(self._scratch, "buffer"):
            self._scratch.buffer = np.empty(self._chunk_rows * self._row_bytes + CRC_BYTES, dtype=np.uint8)
        return self._scratch.buffer


@functools.cache
def _system_preadv() -> Callable[[int, int, int, int], int]:
    """The C library's `preadv`: it takes addresses, and a slice of an array can hold a thousand of them."""
    library = ctypes.CDLL(None, use_errno=True)
    function = library.preadv64 if hasattr(library, "preadv64") else library.preadv
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int64)
    function.restype = ctypes.c_ssize_t
    return function
