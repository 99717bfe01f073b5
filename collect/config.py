"""Arguments of `video-sae collect` and `video-sae verify`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.arguments import require_path
from collect.data.video_choice import VideoChoice
from collect.errors import UserError
from collect.tokens.choice import TokenChoice
from collect.video.sampling import FrameSampling

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Decoder = Literal["cpu", "cuda"]
AttnImplementation = Literal["sdpa", "eager", "flash_attention_2"]

CHUNK_ROWS = 256
"""Rows of the store that share one checksum."""


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Collect the residuals of every visual token of a folder of videos."""

    data: Path
    """Folder with `videos` and, if there are any, `annotations`; or any folder of videos."""
    model: str
    """Video VLM: a folder, or a hub id such as facebook/Perception-LM-1B."""
    out: Path
    """Run folder; the store is written to its folder `activations`."""
    sites: tuple[str, ...]
    """Hook sites: `projector`, `resid_pre/i` (input of decoder layer i) or `resid/i` (its output)."""
    frames: str | None = None
    """Frames of a clip: `16` evenly spread, `2fps` or `2fps:64` (at most 64), or ids such as `0,30,60`; by default the
    model family's own choice."""
    select: str | None = None
    """Videos: a split such as `valid`, a file of ids (`.txt`), a number such as `100` (at most that many), or several
    of these, such as `valid,100`."""
    tokens: str = "all"
    """Visual tokens to store: `all`, `every:N` (of every N-th time step) or `tracks` (on annotated objects)."""
    batch_size: int = 4
    """Videos of one size in one forward pass; halved if they do not fit into memory."""
    dtype: Dtype = "auto"
    """Type of the weights and of the stored activations; `auto` takes the checkpoint's own."""
    device: str = "auto"
    """Where the model runs; `auto` takes a GPU if there is one, and one for each process of torchrun; `spread` divides
    the layers among all GPUs."""
    attn_implementation: AttnImplementation = "sdpa"
    """Attention kernel that transformers uses."""
    shard_rows: int = 16384
    """Tokens in one file of the store, a multiple of 256; a crash loses tokens that do not yet fill a file."""
    workers: int | None = None
    """Threads that decode and preprocess ahead of the model; by default as many as processors and memory allow."""
    decoder: Decoder = "cpu"
    """Where videos are decoded: `cpu`, or `cuda` for the GPU's own decoder, with the same pictures."""
    max_failures: int | None = None
    """Stop a process when it cannot read more than this many of its videos; by default the others are collected,
    however many fail."""

    def __post_init__(self) -> None:
        require_path("--out", self.out)
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise UserError("--sites must name one hook site or several different ones, such as resid/12.")
        if self.frames is not None:
            FrameSampling.parse(self.frames)
        VideoChoice.parse(self.select)
        TokenChoice.parse(self.tokens)
        for name in ("batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {value}.")
        if self.shard_rows < 1 or self.shard_rows % CHUNK_ROWS:
            raise UserError(f"--shard-rows must be a multiple of {CHUNK_ROWS}, not {self.shard_rows}.")
        if self.max_failures is not None and self.max_failures < 0:
            raise UserError(f"--max-failures must not be negative, but is {self.max_failures}.")


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Read a folder of data and list what is wrong or odd in it, without a model."""

    data: Path
    """Folder with `videos` and, if there are any, `annotations`; or any folder of videos."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Check every checksum and every count of an activation store."""

    run: Path
    """Run folder, or the store itself."""
    repair: bool = False
    """Cut ranks back to before their first bad shard, so that `collect` fills them again."""
    workers: int | None = None
    """Threads that read; by default as many as processors and memory allow."""
    edits: bool = False
    """Load the model and each finished SAE too, and test on one video that edits of its latents do what they say."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, not {self.workers}.")


@dataclass(frozen=True, kw_only=True)
class ArchiveConfig:
    """Copy a finished activation store to an object store or another folder, or restore it."""

    run: Path
    """Run folder."""
    at: str
    """Place of the archive: a URL such as s3://bucket/name, or a folder; credentials come from the environment."""
    compress: bool = False
    """Compress it with zstd: a fifth to a third smaller, but ten times slower to read."""
    restore: bool = False
    """Restore the archive into the run folder."""

    def __post_init__(self) -> None:
        if self.compress and self.restore:
            raise UserError("--compress is for making an archive: leave it out with --restore.")
