"""Small activation stores for tests: known rows, written through `StoreWriter`."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from collect.artefact.seal import seal_object
from collect.reading import Failure, VideoRecord
from collect.store.commit_log import read_log
from collect.store.manifest import write_manifest
from collect.store.writer import SiteSpec, StoreWriter
from collect.tokens.grid import TokenGrid, frame_spans

SITES = {"projector": SiteSpec(d_in=6, dtype=torch.float32), "resid/2": SiteSpec(d_in=6, dtype=torch.bfloat16)}
SHARD_ROWS, CHUNK_ROWS = 16, 4
MODEL = {"name": "model", "fingerprint": "f00d"}


def grid_of(n_t: int) -> TokenGrid:
    """Grid of `n_t` time steps with one row and three columns."""
    ids = np.arange(n_t, dtype=np.int64)
    return TokenGrid.uniform(n_rows=1, n_cols=3, spans_s=frame_spans(ids / 30.0, 30.0), frame_ids=ids)


def record_of(index: int, n_t: int, row_start: int) -> VideoRecord:
    return VideoRecord(
        index=index,
        video_id=f"v{index}",
        path=f"videos/v{index}.mp4",
        split="valid",
        row_start=row_start,
        row_stop=row_start + 3 * n_t,
        grid=grid_of(n_t),
        frame_rate=30.0,
        n_frames=90,
        width=64,
        height=48,
    )


def residuals_of(index: int, n_tokens: int) -> dict[str, Tensor]:
    """Rows that depend on nothing but the video's index."""
    generator = torch.Generator().manual_seed(index)
    return {site: torch.randn(n_tokens, spec.d_in, generator=generator).to(spec.dtype) for site, spec in SITES.items()}


def open_writer(folder: Path, capacity: int = 200) -> StoreWriter:
    return StoreWriter(folder, 0, SITES, capacity, SHARD_ROWS, CHUNK_ROWS, MODEL)


def fill(writer: StoreWriter, lengths: Sequence[int]) -> None:
    """Add the videos that are not committed yet; a length of 0 is a video that fails."""
    for index in range(writer.next_video, len(lengths)):
        if lengths[index] == 0:
            writer.add_failure(Failure(index=index, video_id=f"v{index}", reason="it is no video"))
            continue
        record = record_of(index, lengths[index], writer.next_row)
        writer.add_video(record, residuals_of(index, record.grid.n_tokens))


def write_store(folder: Path, lengths: Sequence[int]) -> Path:
    with open_writer(folder) as writer:
        fill(writer, lengths)
        writer.finish()
    write_manifest(folder, [0])
    return folder


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what the manifest says and give it the checksum that goes with it."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(seal_object(content)))


def edit_log(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the lines of a log and give them the checksums that go with them."""
    lines = [dict(line) for line in read_log(path).lines]
    change(lines)
    write_log(path, lines, 0)


def write_log(path: Path, lines: Sequence[Any], checksum: int | None) -> None:
    """Write a log with checksums from 0 on, or with none; lines may be what no program would write."""
    data = b""
    for line in lines:
        text = json.dumps(line, separators=(",", ":")).encode()
        if checksum is not None and isinstance(line, dict):
            body = text[:-1]
            checksum = google_crc32c.extend(checksum, body)
            text = body + (b'%s"crc32c":"%08x"}' % (b"," if line else b"", checksum))
        data += text + b"\n"
    path.write_bytes(data)


def make_first_version(folder: Path) -> Path:
    """Turn a store into one of the format's first version, which had no checksums of logs and manifest."""
    for path in folder.glob("rank-*.jsonl"):
        header, *commits = read_log(path).lines
        without = [{name: value for name, value in commit.items() if name != "chunks"} for commit in commits]
        write_log(path, [{**header, "version": 1}, *without], None)
    path = folder / "manifest.json"
    if path.exists():
        content = {**json.loads(path.read_text()), "version": 1}
        del content["checksum"]
        for rank in content["ranks"]:
            del rank["log_crc32c"]
        path.write_text(json.dumps(content, indent=2) + "\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte that counts: shards, array metadata and log; not the lock, and not what a crash may leave behind."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix not in {".lock", ".partial"}]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
