"""Arguments of `video-sae collect`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.errors import UserError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
AttnImplementation = Literal["sdpa", "eager", "flash_attention_2"]

CHUNK_ROWS = 256
"""Rows of the store under one checksum."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Collect the residuals of every visual token of a folder of videos."""

    data: Path
    """Folder with `videos` and, where there are any, `annotations`; or any folder of videos."""
    model: str
    """Video VLM: a folder, or a hub id such as facebook/Perception-LM-1B."""
    out: Path
    """Run folder; the store is written to its folder `activations`."""
    sites: tuple[str, ...]
    """Hook sites: `projector`, `resid_pre/i` (input of decoder layer i) or `resid/i` (its output)."""
    frames: int | None = None
    """Frames of a clip, evenly spread over the video; the model family's own number by default."""
    split: str | None = None
    """Collect only the videos of this official split, such as `valid`."""
    limit: int | None = None
    """Collect at most this many videos, chosen by `seed`."""
    batch_size: int = 4
    """Videos in one forward pass."""
    dtype: Dtype = "auto"
    """Type of the weights and of the stored activations; `auto` takes the checkpoint's own."""
    device: str = "auto"
    """Where the model runs; `auto` takes a GPU where there is one."""
    attn_implementation: AttnImplementation = "sdpa"
    """Attention kernel of transformers."""
    shard_rows: int = 16384
    """Tokens in one file of the store, a multiple of 256; what is not yet a whole file is lost in a crash."""
    workers: int = 2
    """Threads that decode and preprocess ahead of the model."""
    seed: int = 0
    """Chooses the videos where `limit` leaves some out."""
    max_failures: int | None = None
    """Stop when more videos than this cannot be read; by default the others are collected however many fail."""

    def __post_init__(self) -> None:
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise UserError("--sites must name one hook site or several different ones, such as resid/12.")
        for name in ("frames", "limit", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
        if self.shard_rows < 1 or self.shard_rows % CHUNK_ROWS:
            raise UserError(f"--shard-rows must be a multiple of {CHUNK_ROWS}, not {self.shard_rows}.")
        if self.max_failures is not None and self.max_failures < 0:
            raise UserError(f"--max-failures must not be negative, but is {self.max_failures}.")
