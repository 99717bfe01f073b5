"""Which visual tokens and frames an annotation makes positive, negative or neither.

A label lives in a *space* (kind, level): objects on tokens; actions and sounds on tokens (those on the objects they
involve) and on frames. In every space a unit is positive for a label or *touched* by it without being positive, and
*eligible* if it could serve as a negative at all:

    negative = eligible and not touched

Objects are annotated incompletely, so a patch outside all boxes is unlabelled, not negative. Eligible tokens are
therefore those on some box, and the comparison is between identities; the tokens of annotated frames that no box
touches are the `background`, which is reported beside it. A box over most of the frame (a table) says nothing about
its tokens' identity: it makes its own label positive, but no token eligible.

Boxes persist while an object is hidden: such tokens stay positive, and `hidden` marks those of an object that is masked
at that time (`hidden_tracks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from collect.data.perception_test import Segment, Track, Video
from collect.tokens.grid import TokenGrid
from features.labels.names import normalise_name, object_names

MIN_COVER = 0.5
"""Share of a patch that a box must cover, or share of a frame span that a segment must overlap, for a positive."""
MAX_GAP_S = 1.1
"""Longest gap between annotated frames that a box is interpolated over: boxes are annotated about once a second."""
SCENE_AREA = 0.5
"""Share of the frame from which on a box is the scene rather than a thing in it."""


class Space(NamedTuple):
    """What is labelled (object, action, sound) and on which units (token, frame)."""

    kind: str
    level: str


OBJECTS = Space("object", "token")
SPACES = (OBJECTS, Space("action", "token"), Space("action", "frame"), Space("sound", "token"), Space("sound", "frame"))
Vocabulary = Mapping[Space, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class UnitLabels:
    """Labels of consecutive units in one space."""

    names: tuple[str, ...]
    positive: sparse.csr_array
    """Bool [unit, label]."""
    touched: sparse.csr_array
    """Bool [unit, label]; includes the positive ones."""
    hidden: sparse.csr_array
    """Bool [unit, label]: positive only through objects that are hidden at that time."""
    eligible: Bool[np.ndarray, " unit"]
    background: Bool[np.ndarray, " unit"]

    def masks(self, label: int) -> tuple[Bool[np.ndarray, " unit"], Bool[np.ndarray, " unit"]]:
        """Positive and negative units of a label."""
        positive = _column(self.positive, label)
        return positive, self.eligible & ~_column(self.touched, label)

    def select(self, units: Int64[np.ndarray, " unit"], labels: Sequence[int] | None = None) -> UnitLabels:
        """Labels of some units (in that order), and of all or some names."""
        columns = list(range(len(self.names))) if labels is None else list(labels)
        return UnitLabels(
            names=tuple(self.names[column] for column in columns),
            positive=self.positive[units][:, columns],
            touched=self.touched[units][:, columns],
            hidden=self.hidden[units][:, columns],
            eligible=self.eligible[units],
            background=self.background[units],
        )


@dataclass(frozen=True, kw_only=True)
class VideoLabels:
    """Labels of one video's units in one space, as (unit, label) index pairs."""

    n_units: int
    positive: Int64[np.ndarray, "_ 2"]
    touched: Int64[np.ndarray, "_ 2"]
    hidden: Int64[np.ndarray, "_ 2"]
    eligible: Bool[np.ndarray, " unit"]
    background: Bool[np.ndarray, " unit"]


def stack(parts: Sequence[VideoLabels], names: tuple[str, ...]) -> UnitLabels:
    """Labels of several videos in a row."""
    n_units = sum(part.n_units for part in parts)
    offsets = np.cumsum([0, *(part.n_units for part in parts)])

    def join(entries: Iterable[Int64[np.ndarray, "_ 2"]]) -> sparse.csr_array:
        shifted = [part + np.array([offset, 0]) for part, offset in zip(entries, offsets, strict=False)]
        index = np.concatenate(shifted) if shifted else np.empty((0, 2), dtype=np.int64)
        return sparse.csr_array((np.ones(len(index), dtype=bool), (index[:, 0], index[:, 1])), (n_units, len(names)))

    none = np.empty(0, dtype=bool)
    return UnitLabels(
        names=names,
        positive=join(part.positive for part in parts),
        touched=join(part.touched for part in parts),
        hidden=join(part.hidden for part in parts),
        eligible=np.concatenate([none, *(part.eligible for part in parts)]),
        background=np.concatenate([none, *(part.background for part in parts)]),
    )


def names_of(video: Video) -> dict[Space, frozenset[str]]:
    """Names that a video's annotations contribute to each space."""
    objects = frozenset(name for track in video.tracks for name in object_names(track.label))
    segments = {
        "action": frozenset(normalise_name(segment.label) for segment in video.actions),
        "sound": frozenset(normalise_name(segment.label) for segment in video.sounds),
    }
    return {space: objects if space == OBJECTS else segments[space.kind] for space in SPACES}


def label_video(video: Video, grid: TokenGrid, vocabulary: Vocabulary) -> dict[Space, VideoLabels]:
    """Lay a video's annotations over a token grid: its own, or in a permutation another video's.

    Times are seconds from the start and boxes fractions of the frame, so that annotations keep their place in time and
    space on any grid.
    """
    half_frame_s = 0.5 / video.frame_rate if video.frame_rate else 0.0
    times_s = grid.spans_s.mean(axis=1) - half_frame_s
    boxes = track_boxes(video.tracks, times_s, half_frame_s)
    cover = cover_fractions(boxes, grid.boxes.reshape(-1, 4)).reshape(len(video.tracks), grid.n_tokens)
    is_thing = np.repeat(_areas(boxes) < SCENE_AREA, grid.n_tokens // grid.n_t, axis=1)
    on_thing = np.any((cover >= MIN_COVER) & is_thing, axis=0)
    labels: dict[Space, VideoLabels] = {}
    for space in vocabulary:
        if space == OBJECTS:
            near_thing = ((cover > 0) & is_thing).any(axis=0)
            has_boxes = np.repeat(~np.isnan(boxes[:, :, 0]).all(axis=0), grid.n_tokens // grid.n_t)
            hidden = np.repeat(hidden_tracks(video.tracks, boxes, times_s), grid.n_tokens // grid.n_t, axis=1)
            carriers = [object_names(track.label) for track in video.tracks]
            labels[space] = _collect(
                vocabulary[space], carriers, cover, hidden, eligible=on_thing, background=has_boxes & ~near_thing
            )
            continue
        segments = video.actions if space.kind == "action" else video.sounds
        overlap = overlap_fractions(segments, grid.spans_s)
        if space.level == "token":
            overlap = _involved(segments, video.tracks, overlap, cover)
        eligible = on_thing if space.level == "token" else np.ones(grid.n_t, dtype=bool)
        labels[space] = _collect(
            vocabulary[space],
            [(normalise_name(segment.label),) for segment in segments],
            overlap,
            np.zeros_like(overlap, dtype=bool),
            # A video without any segment of this kind is one that was not annotated for it.
            eligible=eligible & (len(segments) > 0),
            background=np.zeros(len(eligible), dtype=bool),
        )
    return labels


def track_boxes(
    tracks: Sequence[Track], times_s: Float64[np.ndarray, " n_t"], tolerance_s: float
) -> Float64[np.ndarray, "track n_t 4"]:
    """Box of each track at each time: interpolated linearly between annotated frames, NaN where there is none.

    Args:
        tracks: with boxes normalised in the frame.
        times_s: times to give boxes at.
        tolerance_s: distance within which an annotated frame is that time; otherwise a time needs an annotated frame on
            both sides, at most `MAX_GAP_S` apart.
    """
    boxes = np.full((len(tracks), len(times_s), 4), np.nan)
    for index, track in enumerate(tracks):
        known_s, order = np.unique(track.times_s, return_index=True)
        known = track.boxes[order]
        if not len(known_s):
            continue
        after = np.clip(np.searchsorted(known_s, times_s), 1, len(known_s) - 1) if len(known_s) > 1 else None
        if after is not None:
            gap_s = known_s[after] - known_s[after - 1]
            share = (times_s - known_s[after - 1]) / gap_s
            within = (share >= 0) & (share <= 1) & (gap_s <= MAX_GAP_S)
            between = known[after - 1] + share[:, None] * (known[after] - known[after - 1])
            boxes[index, within] = between[within]
        nearest = np.abs(known_s[:, None] - times_s[None, :]).argmin(axis=0)
        exact = np.abs(known_s[nearest] - times_s) <= tolerance_s
        boxes[index, exact] = known[nearest[exact]]
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


def _involved(
    segments: Sequence[Segment],
    tracks: Sequence[Track],
    overlap: Float64[np.ndarray, "segment n_t"],
    cover: Float64[np.ndarray, "track token"],
) -> Float64[np.ndarray, "segment token"]:
    """Degree to which each token is on an object of each segment while it lasts: the smaller of the two shares.

    A segment whose objects are not annotated (no parents, -1, or an id without a track) touches every token of its
    frames a little, so that none of them is called negative.
    """
    index_of = {track.id: index for index, track in enumerate(tracks)}
    n_patches = cover.shape[1] // overlap.shape[1]
    during = np.repeat(overlap, n_patches, axis=1)
    result = np.zeros_like(during)
    for row, segment in enumerate(segments):
        parents = [index_of[parent] for parent in segment.parent_objects if parent in index_of]
        on_parents = cover[parents].max(axis=0) if parents else np.full(cover.shape[1], 0.5 * MIN_COVER)
        result[row] = np.minimum(during[row], on_parents)
    return result


def _collect(
    names: tuple[str, ...],
    carriers: Sequence[tuple[str, ...]],
    degree: Float64[np.ndarray, "carrier unit"],
    hidden: Bool[np.ndarray, "carrier unit"],
    *,
    eligible: Bool[np.ndarray, " unit"],
    background: Bool[np.ndarray, " unit"],
) -> VideoLabels:
    """Join the carriers (tracks or segments) of each name; `degree` is the share of the unit that a carrier takes."""
    shape = (len(names), degree.shape[1])
    most, seen = np.zeros(shape), np.zeros(shape, dtype=bool)
    index_of = {name: index for index, name in enumerate(names)}
    is_seen = (degree >= MIN_COVER) & ~hidden
    for row, own_names in enumerate(carriers):
        for name in own_names:
            if name in index_of:
                np.maximum(most[index_of[name]], degree[row], out=most[index_of[name]])
                seen[index_of[name]] |= is_seen[row]
    positive = most >= MIN_COVER
    return VideoLabels(
        n_units=shape[1],
        positive=_entries(positive),
        touched=_entries(most > 0),
        hidden=_entries(positive & ~seen),
        eligible=eligible,
        background=background,
    )


def _entries(mask: Bool[np.ndarray, "label unit"]) -> Int64[np.ndarray, "entry 2"]:
    label, unit = np.nonzero(mask)
    return np.stack([unit, label], axis=1)


def _areas(boxes: Float64[np.ndarray, "track n_t 4"]) -> Float64[np.ndarray, "track n_t"]:
    return np.nan_to_num((boxes[:, :, 2:] - boxes[:, :, :2]).prod(axis=-1))


def _column(matrix: sparse.csr_array, label: int) -> Bool[np.ndarray, " unit"]:
    return np.asarray(matrix[:, [label]].todense(), dtype=bool).reshape(-1)
