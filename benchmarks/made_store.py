"""Videos that were never filmed, and stores of their activations."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collect.reading import ActivationStore, VideoRecord
from collect.store.manifest import write_manifest
from collect.store.writer import SiteSpec, StoreWriter
from collect.tokens.grid import TokenGrid, frame_spans

FPS = 30.0


def made_grid(n_t: int, n_rows: int, n_cols: int) -> TokenGrid:
    """One frame per second, and patches of equal size."""
    times = np.arange(n_t, dtype=np.float64)
    frame_ids = (FPS * times).astype(np.int64)
    return TokenGrid.uniform(n_rows=n_rows, n_cols=n_cols, spans_s=frame_spans(times, FPS), frame_ids=frame_ids)


def made_record(index: int, row_start: int, grid: TokenGrid, split: str = "train") -> VideoRecord:
    """A video with all tokens of a grid."""
    return VideoRecord(
        index=index,
        video_id=f"video_{index:05d}",
        path="",
        split=split,
        row_start=row_start,
        row_stop=row_start + grid.n_tokens,
        grid=grid,
        frame_rate=FPS,
        n_frames=int(FPS) * grid.n_t,
        width=64,
        height=64,
    )


def write_store(
    folder: Path, site: str, d_in: int, videos: Iterable[tuple[str, Tensor]], grid: TokenGrid, **options: Any
) -> ActivationStore:
    """A store of one site in bfloat16.

    Args:
        folder: of the store.
        site: the site.
        d_in: its width.
        videos: split and activations [token, d_in] of each video; taken one at a time.
        grid: of every video.
        options: of the writer.
    """
    sites = {site: SiteSpec(d_in=d_in, dtype=torch.bfloat16)}
    with StoreWriter(folder, 0, sites, **options) as writer:
        for index, (split, x) in enumerate(videos):
            writer.add_video(made_record(index, writer.next_row, grid, split), {site: x.bfloat16()})
        writer.finish()
    write_manifest(folder, [0])
    return ActivationStore.open(folder)
