"""A reader of the activation store made from `docs/formats.md` with numpy and the standard library alone."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

STORED = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def crc32c_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


TABLE = crc32c_table().tolist()


def crc32c(data: bytes, before: int = 0) -> int:
    """Of `data`, or of what has the value `before` and `data` together."""
    value = before ^ 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def commits_of(log: Path) -> list[dict[str, Any]]:
    content = log.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]  # a last line without a newline was never written
    lines = whole.splitlines()
    if json.loads(lines[0])["version"] > 1:
        value = 0
        for line in lines:
            body, _, tail = line.rpartition(b',"crc32c":"')
            value = crc32c(body, value)
            assert int(tail.removesuffix(b'"}'), 16) == value, f"a line of {log}"
    return [json.loads(line) for line in lines][1:]


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text())
    if manifest["version"] > 1:
        stored = manifest.pop("checksum")
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest()[:16] == stored
    return manifest


def chunks_of(path: Path, n_chunks: int, chunk_bytes: int, noted: str | None) -> Iterator[bytes]:
    """Chunks of a shard; `noted` is what the commit says of them, if it does."""
    found = 0
    data = path.read_bytes()
    index, stored = data[-16 * n_chunks - 4 : -4], data[-4:]
    assert crc32c(index) == int.from_bytes(stored, "little"), f"index of {path}"
    for offset, length in np.frombuffer(index, dtype="<u8").reshape(-1, 2).tolist():
        if offset == length == 2**64 - 1:
            continue
        assert length == chunk_bytes + 4
        chunk, stored = data[offset : offset + chunk_bytes], data[offset + chunk_bytes : offset + length]
        value = crc32c(chunk)
        assert value == int.from_bytes(stored, "little"), f"a chunk of {path}"
        assert noted is None or int(noted[8 * found : 8 * found + 8], 16) == value, f"a chunk of {path}"
        found += 1
        yield chunk


def read_array(folder: Path, manifest: dict[str, Any], array: str, width: int, dtype: str) -> np.ndarray:
    """All valid rows of a site or of `coords`, of all ranks."""
    row_bytes = width * np.dtype(dtype).itemsize
    parts = [np.empty((0, width), dtype)]
    for rank in manifest["ranks"]:
        commits = commits_of(folder / rank["log"])
        n_rows = commits[-1]["row_stop"]
        n_shards = -(-n_rows // manifest["shard_rows"])
        content = b"".join(
            chunk
            for k in range(n_shards)
            for chunk in chunks_of(
                folder / rank["zarr"] / array / "c" / str(k) / "0",
                manifest["shard_rows"] // manifest["chunk_rows"],
                manifest["chunk_rows"] * row_bytes,
                commits[k].get("chunks", {}).get(array),
            )
        )
        parts.append(np.frombuffer(content, dtype).reshape(-1, width)[:n_rows])
    return np.concatenate(parts)


def read_site(folder: Path, site: str) -> np.ndarray:
    manifest = manifest_of(folder)
    spec = manifest["sites"][site]
    stored = read_array(folder, manifest, site, spec["d_in"], STORED[spec["dtype"]])
    return (stored.astype("<u4") << 16).view("<f4") if spec["dtype"] == "bfloat16" else stored


def read_tokens(folder: Path) -> list[tuple[str, float, float, tuple[float, float, float, float]]]:
    """Video id, frame span and patch box of every row, from the logs; `coords` must agree."""
    manifest = manifest_of(folder)
    coords = read_array(folder, manifest, "coords", 4, "<i4")
    found: list[tuple[str, float, float, tuple[float, float, float, float]]] = []
    for rank in manifest["ranks"]:
        for video in (video for commit in commits_of(folder / rank["log"]) for video in commit["videos"]):
            grid = video["grid"]
            n_rows, n_cols = len(grid["row_spans"]), len(grid["col_spans"])
            n_tokens = video["row_stop"] - video["row_start"]
            for token in video.get("ranks", range(n_tokens)):
                t, row, col = token // (n_rows * n_cols), token // n_cols % n_rows, token % n_cols
                assert coords[len(found)].tolist() == [video["index"], t, row, col]
                (y1, y2), (x1, x2) = grid["row_spans"][row], grid["col_spans"][col]
                found.append((video["video_id"], *grid["spans_s"][t], (x1, y1, x2, y2)))
    assert len(found) == manifest["n_tokens"] == len(coords)
    return found
