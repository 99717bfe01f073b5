"""Where tracks are at given times, which patches their boxes cover, which frames segments overlap: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

from collect.data.perception_test import Segment, Track
from features.labels.unit_labels import MIN_COVER

MAX_GAP_S = 1.1
"""Longest gap between annotated frames that a box is interpolated over: boxes are annotated about once a second."""
MOVES = 0.25
"""A thing moves if its centre shifts by more than this share of its box's shorter side from one time to the next."""


def track_boxes(
    tracks: Sequence[Track], times_s: Float64[np.ndarray, " n_t"], tolerance_s: float
) -> Float64[np.ndarray, "track n_t 4"]:
    """Box of each track at each time: interpolated linearly between annotated frames, NaN where there is none.

    Where a track has a box in the annotated frame before a time or in the one after it, but not in both, it came or
    went between the two: its box holds at the times that are nearer to the frame that has it. A frame is annotated if
    any track has a box there, so that the others are absent from it.

    Args:
        tracks: with boxes normalised in the frame.
        times_s: times to give boxes at.
        tolerance_s: distance within which an annotated frame is that time; otherwise a time has a box from annotated
            frames at most `MAX_GAP_S` apart, or away where there is none on the other side.
    """
    boxes = np.full((len(tracks), len(times_s), 4), np.nan)
    frames_s = np.unique(np.concatenate([np.empty(0), *(track.times_s for track in tracks)]))
    if not len(frames_s):
        return boxes
    nearest = frames_s[np.abs(frames_s[:, None] - times_s[None, :]).argmin(axis=0)]
    for index, track in enumerate(tracks):
        known_s, order = np.unique(track.times_s, return_index=True)
        known = track.boxes[order]
        if not len(known_s):
            continue
        own = np.abs(known_s[:, None] - times_s[None, :]).argmin(axis=0)
        held = (known_s[own] == nearest) & (np.abs(nearest - times_s) <= MAX_GAP_S)
        boxes[index, held] = known[own[held]]
        if len(known_s) > 1:
            after = np.clip(np.searchsorted(known_s, times_s), 1, len(known_s) - 1)
            gap_s = known_s[after] - known_s[after - 1]
            share = (times_s - known_s[after - 1]) / gap_s
            within = (share >= 0) & (share <= 1) & (gap_s <= MAX_GAP_S)
            between = known[after - 1] + share[:, None] * (known[after] - known[after - 1])
            boxes[index, within] = between[within]
        exact = np.abs(known_s[own] - times_s) <= tolerance_s
        boxes[index, exact] = known[own[exact]]
    return boxes


def cover_fractions(
    boxes: Float64[np.ndarray, "track n_t 4"], patches: Float64[np.ndarray, "patch 4"]
) -> Float64[np.ndarray, "track n_t patch"]:
    """Share of each patch's area that each box covers; 0 where there is no box or the patch has no area."""
    low = np.maximum(boxes[:, :, None, :2], patches[None, None, :, :2])
    high = np.minimum(boxes[:, :, None, 2:], patches[None, None, :, 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    area = np.clip(patches[:, 2:] - patches[:, :2], 0, None).prod(axis=-1)
    share = np.divide(common, area, out=np.zeros_like(common), where=area > 0)
    share[np.isnan(share)] = 0.0
    share[share < 1e-9] = 0.0  # edges that coincide up to rounding do not touch
    return share


def centre_patches(
    boxes: Float64[np.ndarray, "track n_t 4"], patches: Float64[np.ndarray, "patch 4"]
) -> Bool[np.ndarray, "track n_t patch"]:
    """The patch that holds the centre of each box; none where there is no box or no patch reaches there."""
    centre = (boxes[:, :, None, :2] + boxes[:, :, None, 2:]) / 2
    inside = (centre >= patches[None, None, :, :2]) & (centre < patches[None, None, :, 2:])
    return np.asarray(inside.all(axis=-1))


def moving_tracks(boxes: Float64[np.ndarray, "track n_t 4"]) -> Bool[np.ndarray, "track n_t"]:
    """Where a track's centre shifts from the time before, or to the time after, by more than `MOVES` of its size."""
    centre, size = (boxes[:, :, :2] + boxes[:, :, 2:]) / 2, (boxes[:, :, 2:] - boxes[:, :, :2]).min(axis=-1)
    shift = np.linalg.norm(np.diff(centre, axis=1), axis=-1)
    shifts = np.nan_to_num(shift) > MOVES * np.nan_to_num(np.minimum(size[:, 1:], size[:, :-1]))
    moving = np.zeros(boxes.shape[:2], dtype=bool)
    moving[:, 1:] |= shifts
    moving[:, :-1] |= shifts
    return moving


def first_sights(
    boxes: Float64[np.ndarray, "track n_t 4"],
) -> tuple[Bool[np.ndarray, "track n_t"], Bool[np.ndarray, "track n_t"]]:
    """The first time at which each track has a box, and whether it arrives then.

    It arrives where the time before is annotated, which any other track's box there shows: its absence is an absence.
    """
    present = ~np.isnan(boxes[:, :, 0])
    first = present & (np.cumsum(present, axis=1) == 1)
    annotated = np.asarray(present.any(axis=0))
    arrives = first.copy()
    arrives[:, :1] = False
    arrives[:, 1:] &= annotated[:-1]
    return first, arrives


def hidden_tracks(
    tracks: Sequence[Track], boxes: Float64[np.ndarray, "track n_t 4"], times_s: Float64[np.ndarray, " n_t"]
) -> Bool[np.ndarray, "track n_t"]:
    """Where a track is masked in the annotated frame that is nearest in time.

    In a video whose occluders are annotated, its box must besides lie at least half under an occluder's at that very
    time: objects are covered and uncovered between annotated frames.

    Args:
        tracks: with the frames in which each is masked (cup games only have any).
        boxes: box of each track at each time, NaN where there is none.
        times_s: the times.
    """
    hidden = np.zeros(boxes.shape[:2], dtype=bool)
    occluders = [index for index, track in enumerate(tracks) if track.is_occluder]
    for index, track in enumerate(tracks):
        if not track.is_masked.any():
            continue
        nearest = np.abs(track.times_s[:, None] - times_s[None, :]).argmin(axis=0)
        hidden[index] = track.is_masked[nearest] & ~np.isnan(boxes[index, :, 0])
        for t in np.flatnonzero(hidden[index]) if occluders else ():
            under = cover_fractions(boxes[occluders, t : t + 1], boxes[index, t : t + 1])
            hidden[index, t] = bool((under >= MIN_COVER).any())
    return hidden


def covering_tracks(
    boxes: Float64[np.ndarray, "track n_t 4"], hidden: Bool[np.ndarray, "track n_t"]
) -> Bool[np.ndarray, "track n_t"]:
    """Where at least half of the box of another track that is hidden lies under a track's box."""
    covering = np.zeros(hidden.shape, dtype=bool)
    for index, t in zip(*np.nonzero(hidden), strict=True):
        under = cover_fractions(boxes[:, t : t + 1], boxes[index, t : t + 1]).reshape(-1) >= MIN_COVER
        under[index] = False
        covering[:, t] |= under
    return covering


def overlap_fractions(
    segments: Sequence[Segment], spans_s: Float64[np.ndarray, "n_t 2"]
) -> Float64[np.ndarray, "segment n_t"]:
    """Share of each frame span that each segment overlaps."""
    starts = np.array([segment.start_s for segment in segments]).reshape(-1, 1)
    ends = np.array([segment.end_s for segment in segments]).reshape(-1, 1)
    common = np.clip(np.minimum(ends, spans_s[:, 1]) - np.maximum(starts, spans_s[:, 0]), 0, None)
    share = common / (spans_s[:, 1] - spans_s[:, 0])
    share[share < 1e-9] = 0.0
    return share


def box_areas(boxes: Float64[np.ndarray, "track n_t 4"]) -> Float64[np.ndarray, "track n_t"]:
    """Share of the frame that each box covers; 0 where there is none."""
    return np.nan_to_num((boxes[:, :, 2:] - boxes[:, :, :2]).prod(axis=-1))
