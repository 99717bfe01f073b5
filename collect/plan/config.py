"""Arguments of `video-sae plan`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.arguments import require_path
from collect.data.video_choice import VideoChoice
from collect.errors import UserError
from collect.video.sampling import FrameSampling

StoredDtype = Literal["float32", "bfloat16", "float16"]
Gpu = Literal["h100", "h200", "b200", "a100", "l40s", "a10g", "l4", "rtx4090"]


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Estimate tokens, bytes and GPU hours of a collection before anything is spent."""

    model: str
    """Video VLM: a folder with its config.json, or a hub id; weights are read only with --probe."""
    sites: tuple[str, ...] = ("resid/0",)
    """Hook sites, as for `collect`."""
    frames: str | None = None
    """Frames of a clip: a number such as 16, a rate such as 2fps or 2fps:32, or frame ids such as 0,30,60; by default
    the model family's own choice, as for `collect`."""
    data: Path | None = None
    """Data folder whose videos are counted; without it, the published numbers of Perception Test are used."""
    select: str | None = None
    """Videos, as for `collect`, such as `valid` or `valid,100`; without --data, a published split, by default
    `valid`."""
    videos: int | None = None
    """Number of videos, instead of that of the data."""
    dtype: StoredDtype = "bfloat16"
    """Type of the weights and of the stored activations."""
    gpu: Gpu = "h100"
    """The GPU whose peak speed and memory are assumed."""
    utilisation: float = 0.4
    """Share of that peak that the model reaches; --probe measures it if this machine has that GPU."""
    gpus: tuple[int, ...] = (1, 8, 64)
    """Numbers of GPUs to give the time for."""
    cores_per_gpu: int = 16
    """Processor cores per GPU for decoding and preprocessing."""
    price_per_gpu_hour: float | None = None
    """Price of a GPU hour, in any currency; adds what the time on the GPUs costs."""
    probe: bool = False
    """Load the model and time it on a few videos (of --data, or blank ones) on this machine."""
    json: Path | None = None
    """File for the same numbers as JSON."""

    def __post_init__(self) -> None:
        if self.json is not None:
            require_path("--json", self.json)
        if self.frames is not None:
            FrameSampling.parse(self.frames)
        VideoChoice.parse(self.select)
        if not self.sites or len(set(self.sites)) < len(self.sites):
            raise UserError("--sites must name one hook site or several different ones, such as resid/12.")
        if self.videos is not None and self.videos < 1:
            raise UserError(f"--videos must be at least 1, not {self.videos}.")
        if not 0 < self.utilisation <= 1:
            raise UserError(f"--utilisation is a share between 0 and 1, not {self.utilisation:g}.")
        if not self.gpus or min(self.gpus) < 1:
            raise UserError("--gpus must name one or several numbers of GPUs of at least 1.")
        if self.cores_per_gpu < 1:
            raise UserError(f"--cores-per-gpu must be at least 1, not {self.cores_per_gpu}.")
        if self.price_per_gpu_hour is not None and not 0 <= self.price_per_gpu_hour < float("inf"):
            raise UserError(
                f"--price-per-gpu-hour must not be negative nor without end, but is {self.price_per_gpu_hour:g}."
            )
