"""Turns entries as they are written into tracks and segments: units, and what makes no sense in any unit.

Units are decided per file and part (`collect.data.annotation_units`); entries that contradict the rest of a file are
left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float64

from collect.data.annotation import RawSegment, RawTrack, Segment, Track
from collect.data.annotation_entries import Entry, Said
from collect.data.annotation_files import TRACKS
from collect.data.annotation_units import (
    CLOSE,
    CLOSE_S,
    LARGEST_FRACTION,
    PER_SECOND,
    RARE,
    UNDECIDED,
    BoxUnits,
    Doubt,
    TimeUnit,
    as_corners,
    box_units,
    far_apart,
    in_fractions,
    latest_s,
    time_units,
)
from collect.data.findings import Findings
from collect.printable import printable

Raw = TypeVar("Raw", RawTrack, RawSegment)
LEFT_OUT = "it is left out, as almost all others of the file are as they should be"
SAY_UNITS = (
    "convert them, or say what they are in the `metadata` of each video: `box_unit` (fraction or pixel), `box_format` "
    "(xyxy or xywh), `time_unit` (us, ms or s)"
)
MEND_TIMES = "mend the times, the frame ids or `frame_rate`, or leave out times or frame ids altogether"
UNIT_NAMES: Mapping[TimeUnit, str] = {"us": "microseconds", "ms": "milliseconds", "s": "seconds"}


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What times, frame ids and boxes of one video are measured against; 0 if it is not known."""

    frame_rate: float
    n_frames: int
    height: int
    width: int

    @property
    def duration_s(self) -> float:
        """Length of the video."""
        return self.n_frames / self.frame_rate if self.frame_rate else 0.0


def _by_units(
    found: Sequence[tuple[Entry, Raw]], clocks: Mapping[str, Clock], findings: Findings
) -> list[list[tuple[Entry, Raw]]]:
    """Entries of one file and the same stated units, as far as they can be placed in time."""
    groups: dict[tuple[Path | str, Said], list[tuple[Entry, Raw]]] = {}
    for entry, raw in found:
        if raw.stamps is None and not clocks[entry.video_id].frame_rate:
            follows = "it is left out: give the video, `timestamps`, or `frame_rate` in `metadata`"
            findings.warn(raw.place, "its frame ids cannot be turned into times", follows)
            continue
        groups.setdefault((entry.file, entry.said), []).append((entry, raw))
    return list(groups.values())


def tracks_of(
    found: Sequence[tuple[Entry, RawTrack]], clocks: Mapping[str, Clock], findings: Findings
) -> dict[str, list[Track]]:
    """Turn the tracks of all videos into fractions and seconds.

    Returns:
        Video id -> its tracks.
    """
    tracks: dict[str, list[Track]] = {}
    for group in _by_units(found, clocks, findings):
        place = _file_place(group[0][0], TRACKS)
        own = [clocks[entry.video_id] for entry, _ in group]
        lengths = [len(raw.boxes) for _, raw in group]
        sizes = np.repeat(np.array([[clock.width, clock.height] for clock in own], dtype=np.float64), lengths, axis=0)
        boxes = np.concatenate([raw.boxes for _, raw in group])
        said = group[0][0].said
        numbers = np.repeat(np.arange(len(group)), lengths)
        units = box_units(boxes, sizes, numbers, BoxUnits(unit=said.unit, format=said.format))
        times = _times(group, clocks, place, findings)
        if isinstance(units, Doubt):
            findings.refuse(place, "the units of its boxes cannot be told", SAY_UNITS, _shown(units, group, lengths))
            continue
        if times is None:
            continue
        late = np.concatenate([_late(times_s, clock) for times_s, clock in zip(times, own, strict=True)])
        if late.sum() > RARE * len(late):
            detail = _shown(Doubt(f"{late.sum():,} of {len(late):,}", int(np.argmax(late))), group, lengths)
            findings.refuse(place, "boxes come after the end of their videos", "mend their times or frame ids", detail)
            continue
        _report_boxes(units, said, place, len(boxes), findings)
        assert units.unit is not None
        assert units.format is not None
        corners = as_corners(in_fractions(boxes, np.maximum(sizes, 1), units.unit), units.format)
        start = 0
        for (entry, raw), clock, length, times_s in zip(group, own, lengths, times, strict=True):
            boxes_of_it = corners[start : start + length]
            start += length
            if units.unit == "pixel" and not (clock.width and clock.height):
                follows = "it is left out: give the video, or `resolution` in `metadata`"
                findings.warn(raw.place, "its boxes are in pixels of an unknown resolution", follows)
                continue
            track = _track(raw, boxes_of_it, times_s, clock, findings)
            tracks.setdefault(entry.video_id, []).append(track)
    return tracks


def _report_boxes(units: BoxUnits, said: Said, place: str, n: int, findings: Findings) -> None:
    pixels, sizes = units.unit == "pixel" and said.unit is None, units.format == "xywh" and said.format is None
    if pixels or sizes:
        what = "boxes are read as " + " of ".join(
            [*(["x, y, width and height"] if sizes else ["x1, y1, x2, y2"]), *(["pixels"] if pixels else [])]
        )
        findings.warn(place, what, "the benchmark has x1, y1, x2, y2 as fractions of the frame", f"all {n:,} of them")
    if units.undecided:
        report = findings.warn if units.undecided >= UNDECIDED else findings.note
        report(
            place,
            "boxes are read as x1, y1, x2, y2, but could as well be x, y, width and height",
            "say `box_format` in the `metadata` of each video if this is wrong",
            f"all {n:,} of them",
        )


def _track(
    raw: RawTrack,
    boxes: Float64[np.ndarray, "n 4"],
    times_s: Float64[np.ndarray, " n"],
    clock: Clock,
    findings: Findings,
) -> Track:
    """A track with its boxes cut to the frame, in order of time, one per moment."""
    kept = np.ones(len(boxes), dtype=bool)
    for wrong, what in (
        ((boxes[:, 2:] < boxes[:, :2]).any(axis=1), "the second corner of a box lies before the first"),
        (np.abs(boxes).max(axis=1, initial=0) > LARGEST_FRACTION, "a box lies far outside of the frame"),
        (_late(times_s, clock), "a box comes after the end of the video"),
    ):
        for i in np.flatnonzero(wrong & kept):
            findings.warn(raw.place, what, LEFT_OUT, f"`bounding_boxes`[{i}]")
        kept &= ~wrong
    inside = np.clip(boxes, 0.0, 1.0)
    out = np.flatnonzero(kept & (np.abs(inside - boxes).max(axis=1, initial=0) > 0.01))
    if len(out):
        findings.warn(
            raw.place,
            "boxes reach out of the frame",
            "they are cut to it",
            f"{len(out)} of {len(boxes)}, first [{out[0]}]",
        )
    flat = np.flatnonzero(kept & ((inside[:, 2:] - inside[:, :2]) <= 0).any(axis=1))
    if len(flat):
        findings.warn(
            raw.place, "boxes without area", "they mark no token", f"{len(flat)} of {len(boxes)}, first [{flat[0]}]"
        )
    rows = np.flatnonzero(kept)
    moments, first = np.unique(times_s[rows], return_index=True)
    if len(moments) < len(rows):
        findings.warn(raw.place, "several boxes at one time", "the first of them counts")
    rows = rows[first]
    frame_ids = raw.frame_ids if raw.frame_ids is not None else np.round(times_s * clock.frame_rate).astype(np.int64)
    return Track(
        id=raw.id,
        label=raw.label,
        is_occluder=raw.is_occluder,
        is_masked=raw.is_masked[rows],
        boxes=inside[rows],
        frame_ids=frame_ids[rows],
        times_s=times_s[rows],
    )


def segments_of(
    found: Sequence[tuple[Entry, RawSegment]], part: str, clocks: Mapping[str, Clock], findings: Findings
) -> dict[str, list[Segment]]:
    """Turn the segments of all videos into seconds.

    Returns:
        Video id -> its segments.
    """
    segments: dict[str, list[Segment]] = {}
    for group in _by_units(_forwards(found, findings), clocks, findings):
        times = _times(group, clocks, _file_place(group[0][0], part), findings)
        if times is None:
            continue
        durations = [clocks[entry.video_id].duration_s for entry, _ in group]
        wrong = [0 < duration_s <= float(times_s[0]) for times_s, duration_s in zip(times, durations, strict=True)]
        for (entry, raw), (start_s, end_s), duration_s, late in zip(group, times, durations, wrong, strict=True):
            detail = f"{start_s:g} s to {end_s:g} s"
            if late and sum(wrong) <= RARE * len(wrong):
                findings.warn(raw.place, "it lies after the end of the video", LEFT_OUT, detail)
            elif late:
                detail += f", and the video has {duration_s:.2f} s"
                findings.refuse(raw.place, "it lies after the end of the video", "mend its times or remove it", detail)
            if late:
                continue
            if duration_s and end_s > float(latest_s(np.array([duration_s]))[0]):
                findings.warn(
                    raw.place,
                    "it goes on after the end of the video",
                    "it ends with the video",
                    f"of {duration_s:.2f} s, {detail}",
                )
            if end_s == start_s:
                findings.warn(raw.place, "it has no length", "it labels nothing", detail)
            segments.setdefault(entry.video_id, []).append(
                Segment(
                    id=raw.id,
                    label=raw.label,
                    label_id=raw.label_id,
                    parent_objects=raw.parent_objects,
                    start_s=float(start_s),
                    end_s=float(end_s),
                    is_visible=raw.is_visible,
                )
            )
    return segments


def _forwards(found: Sequence[tuple[Entry, RawSegment]], findings: Findings) -> list[tuple[Entry, RawSegment]]:
    """The segments that do not end before they start, in whichever unit."""
    wrong = [
        any(values is not None and values[1] < values[0] for values in (raw.stamps, raw.frame_ids)) for _, raw in found
    ]
    for (_, raw), backwards in zip(found, wrong, strict=True):
        if backwards and sum(wrong) <= RARE * len(wrong):
            findings.warn(raw.place, "it ends before it starts", LEFT_OUT)
        elif backwards:
            findings.refuse(raw.place, "it ends before it starts", "put its start first")
    return [pair for pair, backwards in zip(found, wrong, strict=True) if not backwards]


def _times(
    group: Sequence[tuple[Entry, Raw]], clocks: Mapping[str, Clock], place: str, findings: Findings
) -> list[Float64[np.ndarray, " n"]] | None:
    """Seconds of the moments of each entry; None if they cannot be worked out."""
    numbers = {video_id: i for i, video_id in enumerate(dict.fromkeys(entry.video_id for entry, _ in group))}
    stamps: list[Float64[np.ndarray, " n"]] = []
    by_frame: list[Float64[np.ndarray, " n"]] = []
    for entry, raw in group:
        rate = clocks[entry.video_id].frame_rate
        n = len(raw.stamps if raw.stamps is not None else raw.frame_ids if raw.frame_ids is not None else ())
        stamps.append(raw.stamps if raw.stamps is not None else np.full(n, np.nan))
        by_frame.append(raw.frame_ids / rate if raw.frame_ids is not None and rate else np.full(n, np.nan))
    lengths = [len(values) for values in stamps]
    durations = np.repeat([clocks[entry.video_id].duration_s for entry, _ in group], lengths)
    videos = np.repeat(np.array([numbers[entry.video_id] for entry, _ in group], dtype=np.int64), lengths)
    flat, frames = np.concatenate(stamps), np.concatenate(by_frame)
    given = ~np.isnan(flat)
    lengths_given = [n for n, (_, raw) in zip(lengths, group, strict=True) if raw.stamps is not None]
    said = group[0][0].said.time
    units = time_units(flat[given], frames[given], durations[given], videos[given], said)
    if isinstance(units, Doubt):
        what, follows = (
            ("its times and its frame ids contradict each other", MEND_TIMES)
            if units.contradiction
            else ("the unit of its times cannot be told", SAY_UNITS)
        )
        findings.refuse(
            place,
            what,
            follows,
            _shown(units, [p for p in group if p[1].stamps is not None], lengths_given),
        )
        return None
    name = UNIT_NAMES[units.unit]
    if units.unit != "us" and said is None:
        findings.warn(
            place, f"times are read as {name}", "the benchmark has microseconds", f"all {given.sum():,} of them"
        )
    if units.unchecked:
        findings.note(
            place, f"times are read as {name}", "there is neither a frame id nor a length to check them against"
        )
    times = [
        values / PER_SECOND[units.unit] if raw.stamps is not None else shown
        for values, shown, (_, raw) in zip(stamps, by_frame, group, strict=True)
    ]
    for times_s, shown, (_, raw) in zip(times, by_frame, group, strict=True):
        _compare(raw, times_s, shown, findings)
    return times


def _compare(
    raw: RawTrack | RawSegment, times_s: Float64[np.ndarray, " n"], shown: Float64[np.ndarray, " n"], findings: Findings
) -> None:
    known = ~np.isnan(shown)
    apart = np.abs(times_s[known] - shown[known])
    if not len(apart):
        return
    if far_apart(times_s[known], shown[known]).any():
        findings.warn(raw.place, "a time contradicts its frame id", "the time counts", f"by {apart.max():.2f} s")
    elif (apart > np.maximum(CLOSE_S, CLOSE * shown[known])).any():
        findings.warn(
            raw.place, "times and frame ids differ a little", "the times count", f"by up to {apart.max():.2f} s"
        )


def _late(times_s: Float64[np.ndarray, " n"], clock: Clock) -> Bool[np.ndarray, " n"]:
    return times_s > latest_s(np.full(len(times_s), clock.duration_s)) if clock.duration_s else times_s < 0


def _shown(doubt: Doubt, group: Sequence[tuple[Entry, Raw]], lengths: Sequence[int]) -> str:
    """A doubt with the place of the entry that shows it."""
    number = int(np.searchsorted(np.cumsum(lengths), doubt.first, side="right"))
    where = group[number][1].place.partition(": ")[2] if number < len(group) else ""
    return f"{doubt.reason}; see {where}" if where else doubt.reason


def _file_place(entry: Entry, part: str) -> str:
    return f"{printable(entry.file, 4096)}: `{part}`"
