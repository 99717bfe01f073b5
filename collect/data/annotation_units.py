"""The units of a file's boxes and times: the benchmark's own, or others that nothing contradicts.

The units are the same for all entries of one part (`object_tracking`, …) of one file, because a file is written by one
program. They are decided from all its entries together; up to `RARE` of them may be at odds with this, and are then
left out. If the evidence leaves a doubt, the doubt is returned, and the file is refused until its `metadata` state the
units. Nothing here reads files.

    boxes    fractions of the frame, or pixels; as x1, y1, x2, y2 or as x, y, width, height
    times    microseconds, milliseconds or seconds
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

BoxUnit = Literal["fraction", "pixel"]
BoxFormat = Literal["xyxy", "xywh"]
TimeUnit = Literal["us", "ms", "s"]
PER_SECOND: dict[TimeUnit, float] = {"us": 1e6, "ms": 1e3, "s": 1.0}
FROM_COARSE: tuple[TimeUnit, ...] = ("s", "ms", "us")
RARE = 0.01
"""Share of the entries that may be at odds with all others."""
MARGIN = 0.05
"""How far a box may reach out of the frame, as a share of it."""
LARGEST_FRACTION = 2.0
"""No box in fractions reaches farther, even if its object has left the frame."""
MIN_REACH = 0.5
"""Share of the frame that boxes in pixels must reach across: otherwise their numbers could count something else."""
UNDECIDED = 20
"""With this many boxes or more, it is odd if all of them could be read in either format."""
END_TOLERANCE_S, END_TOLERANCE = 0.5, 0.05
"""How far a time may lie after the end of its video: in seconds, and as a share of its length."""
CLOSE_S, CLOSE = 0.1, 0.05
"""Difference between a time and that of its frame id that is not worth a note: in seconds, and as a share."""
INSTANT_S = 0.5
"""A file whose latest time comes before this has said little about its videos."""
FAR_S, FAR = 1.0, 0.25
"""Difference at which they contradict each other."""


@dataclass(frozen=True, kw_only=True)
class BoxUnits:
    """How boxes are written; None means not known yet."""

    unit: BoxUnit | None = None
    format: BoxFormat | None = None
    undecided: int = 0
    """Number of boxes, if all of them could be read in either format."""


@dataclass(frozen=True, kw_only=True)
class TimeUnits:
    """How times are written."""

    unit: TimeUnit
    unchecked: bool = False
    """Whether there was nothing to check them against."""


@dataclass(frozen=True)
class Doubt:
    """Why units cannot be decided, as a clause, and the number of the first box or time that shows it."""

    reason: str
    first: int = 0
    contradiction: bool = False
    """Whether two things that the file says exclude each other in every unit."""


def box_units(
    boxes: Float64[np.ndarray, "box 4"],
    sizes: Float64[np.ndarray, "box 2"],
    tracks: Int64[np.ndarray, " box"],
    said: BoxUnits,
) -> BoxUnits | Doubt:
    """Decide how boxes are written.

    Args:
        boxes: as written.
        sizes: width and height in pixels of the frame that each is in; 0 if they are not known.
        tracks: number of the track that each belongs to; boxes of one track follow one another.
        said: what the file itself says.
    """
    if not len(boxes):
        return BoxUnits(unit=said.unit or "fraction", format=said.format or "xyxy")
    unit = said.unit or _box_unit(boxes)
    if isinstance(unit, Doubt):
        return unit
    if unit == "pixel" and not sizes.all():
        known = np.all(sizes > 0, axis=1)
        if not known.any():
            return Doubt("they are in pixels, and the resolution of their videos is not known")
        return box_units(boxes[known], sizes[known], tracks[known], said)
    if unit == "pixel" and float(np.abs(boxes).max()) <= 1:
        return Doubt("they are said to be in pixels, and none reaches beyond 1")
    relative = in_fractions(boxes, sizes, unit)
    decided = said.format or _box_format(relative)
    if isinstance(decided, Doubt):
        return decided
    corners = as_corners(relative, decided)
    wrong = np.any(corners[:, 2:] < corners[:, :2], axis=1)
    if not _rare(wrong):
        return Doubt(
            f"the second corner of {wrong.sum():,} of {len(boxes):,} boxes lies before the first", _first(wrong)
        )
    if unit == "pixel" and said.unit is None:
        doubt = _not_pixels(boxes, sizes, corners)
        if doubt is not None:
            return doubt
    far = np.max(np.abs(corners), axis=1) > LARGEST_FRACTION
    if not _rare(far):
        return Doubt(f"{far.sum():,} of {len(boxes):,} boxes lie far outside of the frame", _first(far))
    either = said.format is None and decided == "xyxy" and bool(_fits_as_size(relative).all())
    if either and _steadier_as_size(relative, tracks):
        return Doubt("they fit both x1, y1, x2, y2 and x, y, width, height, and change less in size as the latter")
    return BoxUnits(unit=unit, format=decided, undecided=len(boxes) if either else 0)


def in_fractions(
    boxes: Float64[np.ndarray, "box 4"], sizes: Float64[np.ndarray, "box 2"], unit: BoxUnit
) -> Float64[np.ndarray, "box 4"]:
    """Boxes as fractions of the frame, in their own format."""
    return boxes if unit == "fraction" else boxes / np.concatenate([sizes, sizes], axis=1)


def as_corners(boxes: Float64[np.ndarray, "box 4"], form: BoxFormat) -> Float64[np.ndarray, "box 4"]:
    """Boxes as x1, y1, x2, y2, in their own unit."""
    return boxes if form == "xyxy" else np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _box_unit(boxes: Float64[np.ndarray, "box 4"]) -> BoxUnit | Doubt:
    reach = np.abs(boxes).max(axis=1)
    if _rare(reach > LARGEST_FRACTION):
        return "fraction"
    fractions = (reach <= 1) & (boxes % 1 != 0).any(axis=1)
    if not _rare(fractions):
        return Doubt(
            f"{fractions.sum():,} of {len(boxes):,} boxes are fractions of the frame, and others reach {reach.max():g}",
            _first(fractions),
        )
    return "pixel"


def _not_pixels(
    boxes: Float64[np.ndarray, "box 4"],
    sizes: Float64[np.ndarray, "box 2"],
    corners: Float64[np.ndarray, "box 4"],
) -> Doubt | None:
    """Why numbers that look like pixels may be something else."""
    outside = (corners.min(axis=1) < -MARGIN) | (corners.max(axis=1) > 1 + MARGIN)
    if not _rare(outside):
        width, height = sizes[outside][0]
        return Doubt(
            f"they reach {boxes.max():g}, and as pixels {outside.sum():,} of {len(boxes):,} would lie outside of a "
            f"frame such as {width:g} x {height:g}",
            _first(outside),
        )
    reach = (corners * np.concatenate([sizes, sizes], axis=1)).max()
    for scale, name in ((100.0, "percent"), (1000.0, "thousandths of the frame")):
        if reach <= scale and (scale == 100.0 or sizes.max() > scale):
            return Doubt(f"none reaches beyond {scale:g}, so that they may be pixels or {name}")
    if corners[:, 2].max() < MIN_REACH or corners[:, 3].max() < MIN_REACH:
        return Doubt("as pixels, all of them would lie in one corner of the frame")
    return None


def _box_format(relative: Float64[np.ndarray, "box 4"]) -> BoxFormat | Doubt:
    backwards = np.any(relative[:, 2:] < relative[:, :2], axis=1)
    if _rare(backwards):
        return "xyxy"
    n, share = int(backwards.sum()), float(backwards.mean())
    if not _rare(~_fits_as_size(relative)):
        return Doubt(
            f"the second corner of {n:,} of {len(relative):,} boxes lies before the first, and read as x, y, width and "
            "height they would leave the frame",
            _first(backwards),
        )
    if (relative[:, 2:] <= relative[:, :2]).all() or share < 0.25:
        return Doubt(
            f"{n:,} of {len(relative):,} are x, y, width and height, or else have their second corner before the first",
            _first(backwards),
        )
    return "xywh"


def _fits_as_size(relative: Float64[np.ndarray, "box 4"]) -> Bool[np.ndarray, " box"]:
    far = relative[:, :2] + relative[:, 2:]
    return np.all(relative[:, 2:] >= 0, axis=1) & np.all(far <= 1 + MARGIN, axis=1)


def _steadier_as_size(relative: Float64[np.ndarray, "box 4"], tracks: Int64[np.ndarray, " box"]) -> bool:
    """Whether objects change less in size from box to box if the last two numbers are width and height."""
    same = tracks[1:] == tracks[:-1]
    as_size = np.abs(np.diff(relative[:, 2:], axis=0))[same].sum()
    as_corner = np.abs(np.diff(relative[:, 2:] - relative[:, :2], axis=0))[same].sum()
    return bool(as_size < as_corner * (1 - 1e-9))


def time_units(
    stamps: Float64[np.ndarray, " time"],
    frame_times_s: Float64[np.ndarray, " time"],
    durations_s: Float64[np.ndarray, " time"],
    videos: Int64[np.ndarray, " time"],
    said: TimeUnit | None,
) -> TimeUnits | Doubt:
    """Decide in which unit times are written.

    Args:
        stamps: as written.
        frame_times_s: time of the frame whose id is given with each; NaN if there is none.
        durations_s: length of each one's video; 0 if it is not known.
        videos: number of each one's video.
        said: what the file itself says.
    """
    known = ~np.isnan(frame_times_s)
    unit = said
    if unit is None and (stamps > 0).any():
        unit = _by_frames(stamps[known], frame_times_s[known]) or _by_length(stamps[~known], durations_s[~known])
    if isinstance(unit, Doubt):
        return unit
    unchecked = unit is None and bool((stamps > 0).any())
    unit = unit or "us"
    apart = far_apart(stamps[known] / PER_SECOND[unit], frame_times_s[known])
    if not _rare(apart):
        others = _by_frames(stamps[known][apart], frame_times_s[known][apart])
        also = f", where others are in {others}" if isinstance(others, str) and others != unit else ""
        return Doubt(
            f"{apart.sum():,} of {len(apart):,} do not fit their frame ids and the frame rate{also}",
            int(np.flatnonzero(known)[apart][0]),
            contradiction=True,
        )
    doubt = None if said else _mixed(np.where(known, 0, stamps), durations_s, videos, unit)
    return doubt or TimeUnits(unit=unit, unchecked=unchecked)


def far_apart(
    times_s: Float64[np.ndarray, " time"], frame_times_s: Float64[np.ndarray, " time"]
) -> Bool[np.ndarray, " time"]:
    """Whether a time and that of its frame id contradict each other.

    They do if they are far apart, or if one is a hundredth of the other or less: units differ by a thousand.
    """
    larger, smaller = np.maximum(times_s, frame_times_s), np.minimum(times_s, frame_times_s)
    apart = larger - smaller > np.maximum(FAR_S, FAR * larger)
    return apart | ((larger >= INSTANT_S) & (smaller > 0) & (smaller <= larger / 100))


def latest_s(durations_s: Float64[np.ndarray, " time"]) -> Float64[np.ndarray, " time"]:
    """Time up to which something may reach in a video of this length."""
    return durations_s * (1 + END_TOLERANCE) + END_TOLERANCE_S


def _by_frames(
    stamps: Float64[np.ndarray, " time"], frame_times_s: Float64[np.ndarray, " time"]
) -> TimeUnit | Doubt | None:
    """The unit according to the frame ids; None if there are none after the first."""
    counted = frame_times_s > 0
    if not counted.any():
        return None
    fits: dict[TimeUnit, int] = {
        unit: int((np.abs(stamps[counted] / scale / frame_times_s[counted] - 1) <= FAR).sum())
        for unit, scale in PER_SECOND.items()
    }
    best: TimeUnit = max(fits, key=lambda unit: fits[unit])
    if fits[best]:
        return best
    # Among the first frames, a time may be off by more than that share, and still only by a moment.
    close: list[TimeUnit] = [
        unit
        for unit, scale in PER_SECOND.items()
        if (np.abs(stamps[counted] / scale - frame_times_s[counted]) <= CLOSE_S).all()
    ]
    if len(close) == 1:
        return close[0]
    return Doubt("they fit their frame ids and the frame rate in no unit", contradiction=True)


def _by_length(
    stamps: Float64[np.ndarray, " time"], durations_s: Float64[np.ndarray, " time"]
) -> TimeUnit | Doubt | None:
    """The unit in which the latest time lies within its video, but not in its first instant."""
    known = durations_s > 0
    if not known.any() or not (stamps[known] > 0).any():
        return None
    place = float(np.quantile(stamps[known] / latest_s(durations_s[known]), 1 - RARE, method="higher"))
    within: list[TimeUnit] = [unit for unit in FROM_COARSE if place <= PER_SECOND[unit]]
    if not within:
        return "us"  # whatever lies after the end is reported one by one
    likely: list[TimeUnit] = [unit for unit in within if stamps.max() / PER_SECOND[unit] >= INSTANT_S]
    if len(likely) > 1:
        return Doubt(f"they reach {stamps.max():g}, which lies within the videos in {' and in '.join(likely)}")
    return likely[0] if likely else within[0]


def _mixed(
    stamps: Float64[np.ndarray, " time"],
    durations_s: Float64[np.ndarray, " time"],
    videos: Int64[np.ndarray, " time"],
    unit: TimeUnit,
) -> Doubt | None:
    """A doubt where in this unit all times of a video would lie within its first instant."""
    n = int(videos.max(initial=-1)) + 1
    latest, duration_s = np.zeros(n), np.zeros(n)
    np.maximum.at(latest, videos, stamps)
    np.maximum.at(duration_s, videos, durations_s)
    instant_s = np.minimum(latest_s(duration_s) / 1000, INSTANT_S / 10)
    odd = (latest > 0) & (latest / PER_SECOND[unit] < instant_s)
    if not odd.any():
        return None
    first = _first(odd[videos])
    return Doubt(
        f"they are in {unit} in some videos, and cannot be in others, where they reach {latest[videos][first]:g}", first
    )


def _first(wrong: Bool[np.ndarray, " entry"]) -> int:
    return int(np.argmax(wrong))


def _rare(wrong: Bool[np.ndarray, " entry"]) -> bool:
    return float(np.sum(wrong)) <= RARE * len(wrong)
