"""Small clips for the suite: still grey blocks, boxes painted into them, and video files of them."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from collect.video.decode import Clip

RATE = 30


def noise(height: int, width: int, *, seed: int = 0) -> UInt8[np.ndarray, "height width 3"]:
    """A still picture of grey blocks, so that neither encoder nor model sees an empty frame."""
    blocks = np.random.default_rng(seed).integers(60, 200, (-(-height // 8), -(-width // 8), 1), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1).repeat(3, axis=2)[:height, :width]


def clip_of(frames: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Clip:
    """A clip of these frames, a thirtieth of a second apart."""
    ids = np.arange(len(frames), dtype=np.int64)
    return Clip(
        video_id="v",
        path=Path("v.mp4"),
        frames=np.stack(frames),
        times_s=ids / RATE,
        frame_ids=ids,
        frame_rate=float(RATE),
        n_frames=len(frames),
    )


def painted(clip: Clip, box: Float[np.ndarray, " 4"], frame: int) -> Clip:
    """The clip with a bright rectangle that fills a box (x1, y1, x2, y2) of one frame, in fractions of the frame."""
    x1, y1, x2, y2 = (box * [clip.width, clip.height, clip.width, clip.height]).round().astype(int)
    frames = clip.frames.copy()
    frames[frame, y1:y2, x1:x2] = (255, 0, 0)
    return dataclasses.replace(clip, frames=frames)


def write_mp4(path: Path, frames: Iterable[UInt8[np.ndarray, "height width 3"]]) -> Path:
    """Encode frames as H.264, nearly without loss and each independent of the others."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "1", "g": "1"})
        stream.pix_fmt = "yuv420p"
        for i, image in enumerate(frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether tensors are equal up to rounding, in units of the second one's largest number."""
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(b.abs().max())
