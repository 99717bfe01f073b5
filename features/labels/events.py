"""What segments of actions and sounds say about frames and about the tokens on the objects that they involve.

An event belongs to the sampling interval in which it happens. A frame of 33 ms every second shows a click of 0.2 s only
by chance; what it does shows in the next sampled frame. So an event's frames are those that it overlaps by half or
more, or, where there are none, the first sampled frame that ends after it began. Each event has four forms:

    NAME          its frames
    NAME begins   the first of them
    after NAME    the first sampled frame that begins when it is over, which can show its result
    since NAME    all frames from its first one on
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from collect.data.perception_test import Segment, Track, Video
from features.labels.geometry import overlap_fractions
from features.labels.names import head_noun, normalise_name
from features.labels.things import CENTRE, LaidTracks
from features.labels.unit_labels import MIN_COVER, Carrier

ACTORS = frozenset({"hand", "person", "finger", "arm", "man", "woman", "human"})
"""Head nouns of those who act; every other object that a segment names is acted on."""
_ROUNDING_S = 1e-6


def frame_names(segments: Sequence[Segment]) -> frozenset[str]:
    """All names that segments give to frames."""
    return frozenset(name for segment in segments for name in _forms(normalise_name(segment.label)))


def token_names(segments: Sequence[Segment]) -> frozenset[str]:
    """All names that segments give to the tokens on their objects."""
    return frozenset(name for segment in segments for name in _forms(normalise_name(segment.label))[:3])


def role_names(video: Video) -> frozenset[str]:
    """All names that objects have for their part in a segment."""
    return frozenset(
        f"{prefix}{name}"
        for segment in (*video.actions, *video.sounds)
        for track, is_known in _taking_part(segment, video.tracks)
        for name in (_roles(track, segment) if is_known else _bystander_names(track, segment))
        for prefix in ("", CENTRE)
    )


def frame_carriers(segments: Sequence[Segment], spans_s: Float64[np.ndarray, "n_t 2"]) -> list[Carrier]:
    """The forms of each segment over the frames of a clip."""
    during = event_frames(segments, spans_s)
    carriers: list[Carrier] = []
    for segment, own in zip(segments, during, strict=True):
        during_name, *names = _forms(normalise_name(segment.label))
        carriers.append(Carrier(names=(during_name,), degree=own))
        for name, frames in zip(names, _moments(segment, own, spans_s), strict=True):
            carriers.append(Carrier(names=(name,), degree=frames))
    return carriers


def token_carriers(
    segments: Sequence[Segment],
    tracks: Sequence[Track],
    spans_s: Float64[np.ndarray, "n_t 2"],
    cover: Float64[np.ndarray, "track token"],
) -> list[Carrier]:
    """The forms of each segment over the tokens on the objects that it involves.

    The degree of a token is the smaller of its frame's and its cover. A segment whose objects are not annotated (no
    parents, -1, or an id without a track) touches every token of its frames a little, so that none is called negative.
    """
    index_of = {track.id: index for index, track in enumerate(tracks)}
    n_patches = cover.shape[1] // len(spans_s)
    carriers: list[Carrier] = []
    for segment, during in zip(segments, event_frames(segments, spans_s), strict=True):
        parents = [index_of[parent] for parent in segment.parent_objects if parent in index_of]
        on_parents = cover[parents].max(axis=0) if parents else np.full(cover.shape[1], 0.5 * MIN_COVER)
        begins, after, _ = _moments(segment, during, spans_s)
        for name, frames in zip(_forms(normalise_name(segment.label)), (during, begins, after), strict=False):
            carriers.append(Carrier(names=(name,), degree=np.minimum(np.repeat(frames, n_patches), on_parents)))
    return carriers


def role_carriers(video: Video, laid: LaidTracks, spans_s: Float64[np.ndarray, "n_t 2"]) -> list[Carrier]:
    """Each object for as long as it takes part in a segment.

    Where a segment's objects are not annotated, it may be any: then each object in the frame is named with the event.
    """
    centres = laid.centres.astype(np.float64)
    row_of = {track.id: row for row, track in enumerate(laid.tracks)}
    segments = (*video.actions, *video.sounds)
    carriers: list[Carrier] = []
    for segment, during in zip(segments, event_frames(segments, spans_s), strict=True):
        begins, _, since = _moments(segment, during, spans_s)
        for track, is_known in _taking_part(segment, laid.tracks):
            names = _roles(track, segment) if is_known else _bystander_names(track, segment)
            together = (names,) if is_known else tuple((name,) for name in names)
            for own, frames in zip(together, (during, begins, since), strict=False):
                degree = np.repeat(frames, len(laid.patches))
                for prefix, on in (("", laid.cover), (CENTRE, centres)):
                    carriers.append(
                        Carrier(
                            names=tuple(f"{prefix}{name}" for name in own),
                            degree=np.minimum(degree, on[row_of[track.id]]),
                        )
                    )
    return carriers


def event_frames(
    segments: Sequence[Segment], spans_s: Float64[np.ndarray, "n_t 2"]
) -> Float64[np.ndarray, "segment n_t"]:
    """Degree to which each frame is one of each segment's: its overlap, or 1 at the frame that ends its interval."""
    degree = overlap_fractions(segments, spans_s)
    for row, segment in zip(degree, segments, strict=True):
        following = np.flatnonzero(spans_s[:, 1] > segment.start_s + _ROUNDING_S)
        if not (row >= MIN_COVER).any() and len(following):
            row[following[0]] = 1.0
    return degree


def _moments(
    segment: Segment, during: Float64[np.ndarray, " n_t"], spans_s: Float64[np.ndarray, "n_t 2"]
) -> list[Float64[np.ndarray, " n_t"]]:
    """Its first frame, the first frame after its end, and all frames since its first one."""
    begins, after, since = np.zeros((3, len(during)))
    own = np.flatnonzero(during >= MIN_COVER)
    if len(own):
        begins[own[0]] = 1.0
        since[own[0] :] = 1.0
    over = np.flatnonzero(spans_s[:, 0] >= segment.end_s - _ROUNDING_S)
    if len(over):
        after[over[0]] = 1.0
    return [begins, after, since]


def _forms(name: str) -> tuple[str, str, str, str]:
    return name, f"{name} begins", f"after {name}", f"since {name}"


def _taking_part(segment: Segment, tracks: Sequence[Track]) -> list[tuple[Track, bool]]:
    """Objects of a segment; where none is annotated, all objects, each of which may be one."""
    known = [track for track in tracks if track.id in segment.parent_objects]
    return [(track, True) for track in known] if known else [(track, False) for track in tracks]


def _roles(track: Track, segment: Segment) -> tuple[str, ...]:
    head, event = head_noun(track.label), normalise_name(segment.label)
    part = "actor" if head in ACTORS else "object"
    return (f"{head} in {event}", f"{part} of {event}", f"{part} of any event")


def _bystander_names(track: Track, segment: Segment) -> tuple[str, str, str]:
    during, begins, _, since = _forms(normalise_name(segment.label))
    head = head_noun(track.label)
    return f"{head} during {during}", f"{head} when {begins}", f"{head} {since}"
