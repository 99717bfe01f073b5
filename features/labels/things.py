"""What tracks say about tokens beyond who is there: parts, first sights, states.

    centre of NAME             the patch that holds the middle of the box
    edge of NAME               patches that the box covers by less than half
    first sight of NAME        the tokens on it in the first frame that shows it
    centre of NAME at first sight      of these the one with the middle of the box
    arrival of NAME            the first sight of what the frame before did not show
    hidden NAME, visible NAME  the tokens on what is hidden at some time, while it is and while it is not
    moving NAME, still NAME    the tokens on it in view, while its box shifts and while it does not
    occluder NAME              the tokens on what is annotated as hiding others
    occluding NAME             the tokens on what hides others, while something hidden lies under it

NAME is a name of the object, in parts and first sights also `thing` for all objects; of states the head noun only, and
with `centre of` before it the patch in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from collect.data.perception_test import Track, Video
from features.labels.geometry import centre_patches, covering_tracks, first_sights, moving_tracks
from features.labels.names import head_noun, object_names
from features.labels.unit_labels import MIN_COVER, Carrier

THING = "thing"
CENTRE = "centre of "
PARTS = ("centre of", "edge of")
SIGHTS = ("first sight of {}", "centre of {} at first sight", "arrival of {}")
STATES = ("hidden", "visible", "moving", "still", "occluder", "occluding")


@dataclass(frozen=True, kw_only=True)
class LaidTracks:
    """A video's tracks over the tokens of a clip."""

    tracks: tuple[Track, ...]
    boxes: Float64[np.ndarray, "track n_t 4"]
    patches: Float64[np.ndarray, "patch 4"]
    cover: Float64[np.ndarray, "track token"]
    hidden: Bool[np.ndarray, "track n_t"]
    is_thing: Bool[np.ndarray, "track n_t"]
    """Where a box is that of a thing in the scene, not of the scene itself."""

    @property
    def centres(self) -> Bool[np.ndarray, "track token"]:
        """The token with the middle of each thing."""
        centre = centre_patches(self.boxes, self.patches) & self.is_thing[:, :, None]
        return centre.reshape(self.cover.shape)

    def over_tokens(self, frames: Bool[np.ndarray, "track n_t"]) -> Bool[np.ndarray, "track token"]:
        """The same for every token of the frames."""
        return np.repeat(frames, len(self.patches), axis=1)


def part_names(video: Video) -> frozenset[str]:
    """All names of parts."""
    return frozenset(f"{part} {name}" for track in video.tracks for part in PARTS for name in _all_names(track))


def sight_names(video: Video) -> frozenset[str]:
    """All names of first sights."""
    return frozenset(sight.format(name) for track in video.tracks for sight in SIGHTS for name in _all_names(track))


def state_names(video: Video) -> frozenset[str]:
    """All names of states."""
    heads = {THING, *(head_noun(track.label) for track in video.tracks)}
    return frozenset(f"{prefix}{state} {head}" for prefix in ("", CENTRE) for state in STATES for head in heads)


def part_carriers(laid: LaidTracks) -> list[Carrier]:
    """The centre and the edge of each thing."""
    centre = laid.centres
    edge = (laid.cover > 0) & (laid.cover < MIN_COVER) & laid.over_tokens(laid.is_thing)
    return [
        Carrier(names=tuple(f"{part} {name}" for name in _all_names(track)), degree=tokens[row].astype(np.float64))
        for part, tokens in zip(PARTS, (centre, edge), strict=True)
        for row, track in enumerate(laid.tracks)
    ]


def sight_carriers(laid: LaidTracks) -> list[Carrier]:
    """Each thing in the first frame that shows it."""
    first, arrives = (laid.over_tokens(frames) for frames in first_sights(laid.boxes))
    centre = laid.centres
    on = np.maximum(np.where(laid.over_tokens(laid.is_thing), laid.cover, 0.0), centre)
    degrees = (np.where(first, on, 0.0), (first & centre).astype(np.float64), np.where(arrives, on, 0.0))
    return [
        Carrier(names=tuple(sight.format(name) for name in _all_names(track)), degree=degree[row])
        for sight, degree in zip(SIGHTS, degrees, strict=True)
        for row, track in enumerate(laid.tracks)
    ]


def state_carriers(laid: LaidTracks) -> list[Carrier]:
    """Each thing while it is hidden or not, in view while it moves or not, and what hides others."""
    moving = moving_tracks(laid.boxes) & ~laid.hidden
    hides = np.array([bool(track.is_masked.any()) for track in laid.tracks], dtype=bool)[:, None]
    occludes = np.array([track.is_occluder for track in laid.tracks], dtype=bool)[:, None]
    states = (
        laid.hidden,
        hides & ~laid.hidden,
        moving,
        ~moving & ~laid.hidden,
        np.broadcast_to(occludes, laid.hidden.shape),
        occludes & covering_tracks(laid.boxes, laid.hidden),
    )
    on = np.where(laid.over_tokens(laid.is_thing), laid.cover, 0.0)
    return [
        Carrier(
            names=(f"{prefix}{state} {head_noun(track.label)}", f"{prefix}{state} {THING}"),
            degree=np.where(laid.over_tokens(frames)[row], tokens[row], 0.0),
        )
        for state, frames in zip(STATES, states, strict=True)
        for prefix, tokens in (("", on), (CENTRE, laid.centres))
        for row, track in enumerate(laid.tracks)
    ]


def _all_names(track: Track) -> tuple[str, ...]:
    return (*object_names(track.label), THING)
