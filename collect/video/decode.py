"""The clip that a VLM is given: some frames of a video, with their ids and exact presentation times."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.codec.hwaccel import HWAccel
from jaxtyping import Float64, Int64, UInt8

from collect.printable import printable
from collect.video.file import DecodeError, read_frames
from collect.video.sampling import SLACK_S, FrameSampling


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
    """Places in presentation order; a video shorter than the clip repeats frames."""
    frame_rate: float
    """Average rate of the video, in frames per second."""
    n_frames: int
    """Frames that the video shows before the cut, damaged ones included."""

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


def choose_ids(sampling: FrameSampling, times_s: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " frame"]:
    """Pick frame ids.

    Args:
        sampling: the rule.
        times_s: presentation times of the frames to choose from, ascending from 0, or from later if the first are
            damaged.

    Returns:
        Ids in the order in which the model should see them; if the rule names them, some may not exist.
    """
    if sampling.ids is not None:
        return np.array(sampling.ids, dtype=np.int64)
    if sampling.fps is None:
        return sample_ids(len(times_s), sampling.n_at_most)
    n = sampling.n_by_rate(float(times_s[-1]))
    if n > sampling.max_n:
        return sample_ids(len(times_s), sampling.max_n)
    # The frame on the screen at each time: the last one that is not later.
    wanted_s = np.arange(n) / sampling.fps + SLACK_S
    # If the first frames are damaged, nothing is on the screen at first.
    return np.maximum(np.searchsorted(times_s, wanted_s, side="right").astype(np.int64) - 1, 0)


def decode_clip(
    path: Path,
    video_id: str,
    frames: FrameSampling | int = 8,
    cut_frame: int | None = None,
    *,
    hwaccel: HWAccel | None = None,
) -> Clip:
    """Decode some frames of a video.

    Damaged frames are not used: frames that are spread evenly or taken by rate are chosen from the intact ones, and a
        named frame that is damaged is replaced by the nearest intact one. The clip's ids are those of the frames that
        it has.

    Args:
        path: the video file.
        video_id: name of the video in its dataset.
        frames: which ones; a number means that many, evenly spread, including the first and the last.
        cut_frame: use only the frames before this one; None or a number below 1 uses all.
        hwaccel: what decodes, from `collect.video.hardware`; None is this process.

    Raises:
        DecodeError: the file is missing, is not a video, has no intact frame before the cut, or lacks a frame that
            `frames` names.
    """
    sampling = FrameSampling(n=frames) if isinstance(frames, int) else frames
    n_cut = cut_frame if cut_frame is not None and cut_frame > 0 else None

    def choose(times_s: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " frame"]:
        return _present(path, choose_ids(sampling, times_s), len(times_s), " before its cut" if n_cut else "")

    found = read_frames(
        path,
        choose,
        n_cut=n_cut,
        when_damaged="choose again" if sampling.ids is None else "take the nearest",
        hwaccel=hwaccel,
    )
    return Clip(
        video_id=video_id,
        path=path,
        frames=found.pixels,
        times_s=found.all_times_s[found.ids],
        frame_ids=found.ids,
        frame_rate=found.frame_rate,
        n_frames=len(found.all_times_s[:n_cut]),
    )


def decode_frames(path: Path, ids: Sequence[int]) -> UInt8[np.ndarray, "frame height width 3"]:
    """Decode the frames with the given ids, in the given order, as RGB in display orientation.

    Raises:
        DecodeError: as for `decode_clip`, and if an id is not one of the video's frames or its frame is damaged.
    """

    def choose(times_s: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " frame"]:
        return _present(path, np.asarray(ids, dtype=np.int64), len(times_s))

    return read_frames(path, choose, when_damaged="refuse").pixels


def frame_at(path: Path, frame_id: int) -> UInt8[np.ndarray, "height width 3"]:
    """Decode one frame as RGB in display orientation; raises as `decode_frames`."""
    return decode_frames(path, [frame_id])[0]


def _present(path: Path, ids: Int64[np.ndarray, " frame"], n: int, of_what: str = "") -> Int64[np.ndarray, " frame"]:
    outside = ids[(ids < 0) | (ids >= n)]
    if len(outside):
        raise DecodeError(
            f"{printable(path, 1000)} has no frame {int(outside[0])}: it has {n} frames{of_what}; ask for one of them."
        )
    return ids
