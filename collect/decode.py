"""The clip that a VLM is given: frames spread evenly over a video, with their ids and exact presentation times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from collect.video_file import DecodeError, read_frames


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """The frames of one video that a VLM is given."""

    video_id: str
    path: Path
    frames: UInt8[np.ndarray, "frame height width 3"]
    """RGB, in display orientation."""
    times_s: Float64[np.ndarray, " frame"]
    """Presentation times, in seconds from the video's first frame."""
    frame_ids: Int64[np.ndarray, " frame"]
    """Indices in presentation order; a video shorter than the clip repeats frames."""
    frame_rate: float
    """Average rate of the video, in frames a second."""
    n_frames: int
    """Frames of the video that decode and lie before the cut."""

    @property
    def height(self) -> int:
        """Height of a frame in pixels, in display orientation."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Width of a frame in pixels, in display orientation."""
        return self.frames.shape[2]


def sample_ids(n_available: int, n_frames: int) -> Int64[np.ndarray, " frame"]:
    """Spread `n_frames` frame ids evenly from the first to the last of `n_available` frames."""
    return np.round(np.linspace(0, n_available - 1, n_frames)).astype(np.int64)


def decode_clip(path: Path, video_id: str, n_frames: int = 8, cut_frame: int | None = None) -> Clip:
    """Decode evenly spread frames of a video.

    Args:
        path: the video file.
        video_id: name of the video in its dataset.
        n_frames: frames of the clip, the first and the last of the video included.
        cut_frame: use only the frames before this one; None or a number below 1 uses all.

    Raises:
        DecodeError: the file is missing, is not a video, has no frames, or is damaged where a frame is wanted.
    """

    def choose(n: int) -> Int64[np.ndarray, " frame"]:
        return sample_ids(min(n, cut_frame) if cut_frame is not None and cut_frame > 0 else n, n_frames)

    frames = read_frames(path, choose)
    n_available = len(frames.all_times_s)
    if cut_frame is not None and cut_frame > 0:
        n_available = min(n_available, cut_frame)
    return Clip(
        video_id=video_id,
        path=path,
        frames=frames.pixels,
        times_s=frames.all_times_s[frames.ids],
        frame_ids=frames.ids,
        frame_rate=frames.frame_rate,
        n_frames=n_available,
    )


def decode_frames(path: Path, ids: Sequence[int]) -> UInt8[np.ndarray, "frame height width 3"]:
    """Decode the frames with the given ids, in the given order, as RGB in display orientation.

    Raises:
        DecodeError: as for `decode_clip`, and where an id is not one of the video's frames.
    """
    wanted = np.asarray(ids, dtype=np.int64)

    def choose(n: int) -> Int64[np.ndarray, " frame"]:
        outside = wanted[(wanted < 0) | (wanted >= n)]
        if len(outside):
            raise DecodeError(f"{path} has no frame {int(outside[0])}: it has {n} frames; ask for one of them.")
        return wanted

    return read_frames(path, choose).pixels


def frame_at(path: Path, frame_id: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode one frame as RGB in display orientation; raises as `decode_frames`."""
    return decode_frames(path, [frame_id])[0]
