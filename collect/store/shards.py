"""Shard files of the activation store: uncompressed Zarr v3 shards, written whole and read without zarr.

A shard holds `shard_rows` rows of an array [token, d] as inner chunks of `chunk_rows` rows. The file is the chunks,
each followed by the four bytes of its crc32c, then an index of (offset, length) per chunk as unsigned 64-bit integers,
then the crc32c of the index. A chunk that was never written has both entries 2**64 - 1. Writers put the chunks in
order; readers follow the index. All numbers are little-endian.

Source: Zarr v3 core specification, codecs `sharding_indexed`, `bytes` and `crc32c`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
from jaxtyping import Shaped, UInt8, UInt32, UInt64

from collect.artefact.folder import sync_folder
from collect.artefact.inside import open_regular
from collect.errors import UserError
from collect.printable import printable

CRC_BYTES = 4
MISSING = np.uint64(2**64 - 1)
PARTIAL_SUFFIX = ".partial"
DAMAGE_REMEDY = "restore it, or delete the activations folder and collect again"
SHARD_REMEDY = "restore it, or run `video-sae verify --repair` on its run and then `video-sae collect` as before"


@dataclass(frozen=True, kw_only=True, eq=False)
class Shard:
    """One shard file as a reader needs it: rows `row_start` to `row_stop` of the store lie in its chunks."""

    path: Path
    row_start: int
    """First of the shard's rows, counted over the whole store."""
    row_stop: int
    """One past its last committed row."""
    chunk_rows: int
    chunk_offsets: UInt64[np.ndarray, " n_chunks"]
    """Byte offset of each inner chunk that holds committed rows; its rows follow one another without gaps."""
    row_bytes: int
    chunk_crcs: UInt32[np.ndarray, " n_chunks"] | None = None
    """crc32c of each of these chunks as it was committed; None if the log does not say."""

    @property
    def n_rows(self) -> int:
        """Number of committed rows."""
        return self.row_stop - self.row_start

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk without its checksum."""
        return self.chunk_rows * self.row_bytes


def write_shard(
    path: Path, rows: Shaped[np.ndarray, "row d"], *, shard_rows: int, chunk_rows: int
) -> UInt32[np.ndarray, " n_chunks"]:
    """Write one shard so that it is either complete on disk or not there at all.

    Args:
        path: the shard file.
        rows: its rows, in C order; fewer than `shard_rows` in the last shard of a store, where the rest of the last
            chunk is zero and the chunks after it are missing.
        shard_rows: rows of a full shard.
        chunk_rows: rows of an inner chunk; divides `shard_rows`.

    Returns:
        crc32c of each chunk that has rows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with partial.open("wb", buffering=0) as file:
        crcs: list[np.ndarray] = []
        for content, crc in _parts(rows, shard_rows // chunk_rows, chunk_rows):
            _write_all(file.fileno(), content)
            _write_all(file.fileno(), crc.view(np.uint8))
            crcs.append(crc)
        os.fsync(file.fileno())
    partial.replace(path)
    for folder in (path.parent, path.parent.parent):
        sync_folder(folder)
    return np.concatenate(crcs[:-1]).astype(np.uint32)  # the last is the index's


def open_shard(
    path: Path,
    *,
    row_start: int,
    row_stop: int,
    n_chunks: int,
    chunk_rows: int,
    row_bytes: int,
    chunk_crcs: UInt32[np.ndarray, " n_used"] | None = None,
) -> Shard:
    """Read and check a shard's index.

    Args:
        path: the shard file.
        row_start: first of its rows, counted over the whole store.
        row_stop: one past its last committed row.
        n_chunks: inner chunks of a full shard.
        chunk_rows: rows of an inner chunk.
        row_bytes: bytes of a row.
        chunk_crcs: crc32c of each chunk that has rows, as it was committed; None if that is not known.

    Raises:
        UserError: the file is missing, is not a regular file, is too short for its rows, or its index is damaged.
    """
    index_bytes = n_chunks * 16
    n_used = -(-(row_stop - row_start) // chunk_rows)
    chunk_bytes = chunk_rows * row_bytes + CRC_BYTES
    try:
        descriptor = open_regular(path)
        try:
            end = os.fstat(descriptor).st_size - index_bytes - CRC_BYTES
            # Checked before anything is allocated: the file must be large enough for the numbers in the log.
            if end < n_used * chunk_bytes:
                raise damaged_shard(path, "it is too short for its rows")
            tail = os.pread(descriptor, index_bytes + CRC_BYTES, end)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise damaged_shard(path, error.strerror or "it cannot be read") from None
    if len(tail) != index_bytes + CRC_BYTES:
        raise damaged_shard(path, "it became shorter while it was read")
    index = np.frombuffer(tail[:index_bytes], dtype="<u8").reshape(n_chunks, 2)
    if google_crc32c.value(tail[:index_bytes]) != int.from_bytes(tail[index_bytes:], "little"):
        raise damaged_shard(path, "its index fails its checksum")
    used = index[:n_used]
    if np.any(used[:, 1] != chunk_bytes):
        raise damaged_shard(path, "a chunk is missing or has a wrong length")
    if np.any(used[:, 0] > end - chunk_bytes):
        raise damaged_shard(path, "a chunk lies outside the file")
    return Shard(
        path=path,
        row_start=row_start,
        row_stop=row_stop,
        chunk_rows=chunk_rows,
        chunk_offsets=used[:, 0].astype(np.uint64),
        row_bytes=row_bytes,
        chunk_crcs=chunk_crcs,
    )


def read_rows(shard: Shard, start: int, stop: int, out: Shaped[np.ndarray, "row d"]) -> None:
    """Read rows of one shard into `out` and verify the checksums of the chunks they lie in.

    Args:
        shard: from `open_shard`.
        start: first row, counted over the whole store.
        stop: one past the last row.
        out: [stop - start, d], in C order, of the stored type.

    Raises:
        UserError: the file cannot be read, or a chunk fails its checksum.
    """
    chunks = range((start - shard.row_start) // shard.chunk_rows, -(-(stop - shard.row_start) // shard.chunk_rows))
    try:
        descriptor = open_regular(shard.path)
    except OSError as error:
        raise damaged_shard(shard.path, error.strerror or "it cannot be opened") from None
    try:
        spare: np.ndarray | None = None
        for chunk in chunks:
            chunk_start = shard.row_start + chunk * shard.chunk_rows
            low, high = max(start, chunk_start), min(stop, chunk_start + shard.chunk_rows)
            if high - low == shard.chunk_rows:  # directly into the result
                _read_chunk(descriptor, shard, chunk, out[low - start : high - start].reshape(-1).view(np.uint8))
                continue
            if spare is None:
                spare = np.empty(shard.chunk_bytes, dtype=np.uint8)
            _read_chunk(descriptor, shard, chunk, spare)
            rows = spare.view(out.dtype).reshape(shard.chunk_rows, -1)
            out[low - start : high - start] = rows[low - chunk_start : high - chunk_start]
    finally:
        os.close(descriptor)


def damaged(path: Path, reason: str, remedy: str = DAMAGE_REMEDY) -> UserError:
    """The error for a file of a store that cannot be trusted."""
    return UserError(f"{printable(path, 4096)} is damaged ({reason}): {remedy}.")


def damaged_shard(path: Path, reason: str) -> UserError:
    """The same for a shard, which `verify --repair` cuts off, so that `collect` makes only what is missing."""
    return damaged(path, reason, SHARD_REMEDY)


def _read_chunk(descriptor: int, shard: Shard, chunk: int, out: UInt8[np.ndarray, " byte"]) -> None:
    """Read one chunk's rows into `out` and verify their checksum."""
    stored = np.empty(CRC_BYTES, dtype=np.uint8)
    n_read = os.preadv(descriptor, [out.data, stored.data], int(shard.chunk_offsets[chunk]))
    crc = google_crc32c.value(out)
    if n_read != len(out) + CRC_BYTES or crc != int.from_bytes(stored.tobytes(), "little"):
        raise damaged_shard(shard.path, f"its chunk {chunk} fails its checksum")
    if shard.chunk_crcs is not None and crc != shard.chunk_crcs[chunk]:
        raise damaged_shard(shard.path, f"its chunk {chunk} is whole, but not the one that was committed")


def _parts(rows: np.ndarray, n_chunks: int, chunk_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The chunks of a shard file and its index, each with its crc32c."""
    n_used = -(-len(rows) // chunk_rows)
    chunk_bytes = chunk_rows * rows.shape[1] * rows.itemsize + CRC_BYTES
    index = np.full((n_chunks, 2), MISSING, dtype="<u8")
    index[:n_used, 0] = np.arange(n_used) * chunk_bytes
    index[:n_used, 1] = chunk_bytes
    for i in range(n_used):
        chunk = rows[i * chunk_rows : (i + 1) * chunk_rows]
        if len(chunk) < chunk_rows:
            chunk = np.concatenate([chunk, np.zeros((chunk_rows - len(chunk), rows.shape[1]), dtype=rows.dtype)])
        yield _with_crc(chunk)
    yield _with_crc(index)


def _with_crc(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return flat, np.array([google_crc32c.value(flat)], dtype="<u4")


def _write_all(descriptor: int, data: np.ndarray) -> None:
    view = data.data
    while view:
        view = view[os.write(descriptor, view) :]
