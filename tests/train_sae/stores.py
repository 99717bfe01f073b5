"""Small activation stores with a planted dictionary, written through collect's own writer."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from collect.reading import VideoRecord
from collect.store.manifest import write_manifest
from collect.store.writer import SiteSpec, StoreWriter
from collect.tokens.grid import TokenGrid, frame_spans

SITE = "resid/2"
D_IN = 24
N_PLANTED = 20
VIDEO_TOKENS = 64
SHARD_ROWS, CHUNK_ROWS = 256, 64


def planted_directions() -> Tensor:
    """The unit directions that the activations are made of: [N_PLANTED, D_IN]."""
    directions = torch.randn(N_PLANTED, D_IN, generator=torch.Generator().manual_seed(7))
    return directions / directions.norm(dim=1, keepdim=True)


def planted_activations(n_tokens: int, seed: int) -> Tensor:
    """Sums of two of the planted directions on average, about a common mean, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(n_tokens, N_PLANTED, generator=generator) < 2 / N_PLANTED
    strength = active * (1 + torch.rand(n_tokens, N_PLANTED, generator=generator))
    noise = 0.01 * torch.randn(n_tokens, D_IN, generator=generator)
    return 3 * (strength @ planted_directions() + noise + 2.0)


def write_run(
    run: Path,
    n_videos: int = 40,
    dtype: torch.dtype = torch.float32,
    splits: tuple[str, ...] = ("",),
    others: tuple[str, ...] = (),
) -> Path:
    """Write `run/activations`; video i has the activations of seed i and the splits in turn.

    The site is SITE; in `others`, if any, the dimensions stand in another order, which differs from site to site.
    """
    folder = run / "activations"
    ids = np.arange(4, dtype=np.int64)
    grid = TokenGrid.uniform(n_rows=4, n_cols=4, spans_s=frame_spans(ids / 30.0, 30.0), frame_ids=ids)
    names = (SITE, *others)
    sites = {name: SiteSpec(d_in=D_IN, dtype=dtype) for name in names}
    model = {"name": "a-model", "fingerprint": "f00d"}
    with StoreWriter(folder, 0, sites, n_videos * VIDEO_TOKENS, SHARD_ROWS, CHUNK_ROWS, model) as writer:
        for index in range(n_videos):
            record = VideoRecord(
                index=index,
                video_id=f"video_{index}",
                path=f"videos/video_{index}.mp4",
                split=splits[index % len(splits)],
                row_start=index * VIDEO_TOKENS,
                row_stop=(index + 1) * VIDEO_TOKENS,
                grid=grid,
                frame_rate=30.0,
                n_frames=90,
                width=64,
                height=48,
            )
            x = planted_activations(VIDEO_TOKENS, seed=index).to(dtype)
            writer.add_video(record, {name: x.roll(place, dims=1) for place, name in enumerate(names)})
        writer.finish()
    write_manifest(folder, [0])
    return run
