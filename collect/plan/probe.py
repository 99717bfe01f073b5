"""Timing a model on a few clips on this machine, so that a plan can use measured speeds."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from collect.data.perception_test import Video
from collect.plan.cost import clip_cost
from collect.plan.model import ModelSizes
from collect.video.decode import Clip, decode_clip
from collect.video.file import DecodeError
from collect.video.sampling import FrameSampling
from collect.vlm import load_vlm

logger = logging.getLogger(__name__)

MAX_CLIPS = 4
MAX_SECONDS = 60.0
"""Clips are timed until either is reached, but at least one."""
BLANK_SIZE = (1080, 1920)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Speeds on this machine."""

    device: str
    n_clips: int
    operations_per_s: float
    decoded_pixels_per_s: float | None
    """Of one core; None if no video was decoded."""
    preprocess_s: float
    """Of one clip, on one core."""
    tokens_over_expected: float
    """Visual tokens that the model gave, divided by those that were expected: 1 if the plan is right."""


def measure(
    sizes: ModelSizes, sites: Sequence[str], dtype: str, sampling: FrameSampling, videos: Sequence[Video]
) -> Measured:
    """Load the model and time decoding, preprocessing and the forward pass, not counting the first pass.

    Raises:
        UserError: the model cannot be loaded, has no such site, or none of the videos can be read.
    """
    vlm = load_vlm(sizes.name, dtype=dtype)  # pyright: ignore[reportArgumentType]
    clips, decode_s, pixels = _clips(videos, sampling)
    operations, expected, tokens, forward_s, preprocess_s = 0.0, 0, 0, 0.0, 0.0
    n_clips, begun = 0, time.perf_counter()
    for clip in clips:
        start = time.perf_counter()
        prefix = vlm.prefix(clip)
        preprocess_s += time.perf_counter() - start
        if n_clips == 0:
            vlm.visual_residuals([prefix], sites)  # the first pass also sets up kernels and memory
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        start = time.perf_counter()
        found = vlm.visual_residuals([prefix], sites)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        forward_s += time.perf_counter() - start
        cost = clip_cost(sizes, sites, dtype, n_frames=len(clip.frames), height=clip.height, width=clip.width)
        operations += cost.operations
        last = next(reversed(found))
        expected += cost.tower_tokens if last.startswith("vision") else cost.visual_tokens
        tokens += found[last].shape[1]
        n_clips += 1
        if time.perf_counter() - begun > MAX_SECONDS:
            break
    device = torch.cuda.get_device_name() if vlm.device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return Measured(
        device=device,
        n_clips=n_clips,
        operations_per_s=operations / forward_s,
        decoded_pixels_per_s=pixels / decode_s if decode_s else None,
        preprocess_s=preprocess_s / n_clips,
        tokens_over_expected=tokens / expected,
    )


def _clips(videos: Sequence[Video], sampling: FrameSampling) -> tuple[list[Clip], float, float]:
    """Decode a few videos, or make a blank clip; and the seconds and pixels that decoding took."""
    clips: list[Clip] = []
    seconds, pixels = 0.0, 0.0
    for video in videos:
        if len(clips) == MAX_CLIPS or seconds > MAX_SECONDS:
            break
        assert video.path is not None
        start = time.perf_counter()
        try:
            clip = decode_clip(video.path, video.video_id, sampling, video.cut_frame)
        except DecodeError as error:
            logger.warning("%s", error)
            continue
        seconds += time.perf_counter() - start
        pixels += video.n_frames * video.height * video.width
        clips.append(clip)
    return clips or [_blank_clip(sampling.n_at_most)], seconds, pixels


def _blank_clip(n_frames: int) -> Clip:
    ids = np.arange(n_frames)
    return Clip(
        video_id="blank",
        path=Path("blank"),
        frames=np.zeros((n_frames, *BLANK_SIZE, 3), dtype=np.uint8),
        times_s=ids / 30.0,
        frame_ids=ids,
        frame_rate=30.0,
        n_frames=n_frames,
    )
