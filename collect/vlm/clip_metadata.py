"""What transformers' processors need to know about a clip's frames: rate, indices and times."""

from pathlib import Path
from typing import Any

import numpy as np

from collect.video.decode import Clip


def video_metadata(clip: Clip) -> dict[str, Any]:
    """Metadata from which a processor computes the times at which the frames are really shown.

    Processors assume that a frame's time is its index divided by the frame rate, which is wrong for a video with a
    variable rate. So the indices given here are the presentation times in units of a frame. In the same way, the number
    of frames is chosen so that the rate of the sampled frames, which some families compute from it, is one over their
    distance.
    """
    n = len(clip.times_s)
    span_s = float(clip.times_s[-1] - clip.times_s[0])
    step_s = span_s / (n - 1) if n > 1 and span_s > 0 else 1.0 / clip.frame_rate
    return {
        "fps": clip.frame_rate,
        "frames_indices": (clip.times_s * clip.frame_rate).tolist(),
        "total_num_frames": n * step_s * clip.frame_rate,
        "duration": clip.n_frames / clip.frame_rate,
        "width": clip.width,
        "height": clip.height,
    }


def blank_clip(n_frames: int, height: int = 64, width: int = 64) -> Clip:
    """A clip of black frames, a thirtieth of a second apart."""
    ids = np.arange(n_frames)
    return Clip(
        video_id="blank",
        path=Path("blank"),
        frames=np.zeros((n_frames, height, width, 3), dtype=np.uint8),
        times_s=ids / 30.0,
        frame_ids=ids,
        frame_rate=30.0,
        n_frames=n_frames,
    )
