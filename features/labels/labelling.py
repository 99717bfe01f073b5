"""Which visual tokens, frames and videos an annotation makes positive, negative or neither.

Objects are annotated incompletely, so a patch outside all boxes is unlabelled, not negative. Eligible tokens are
therefore those on some box, and the comparison is between identities; the tokens of annotated frames that no box
touches are the `background`, which is reported beside it. A box over most of the frame (a table) says nothing about
its tokens' identity: it makes its own label positive, but no token eligible.

Boxes persist while an object is hidden: such tokens stay positive, and `hidden` marks those of an object that is masked
at that time.

Every frame of an annotated video may be a negative of actions, sounds and scenes: a video without segments of a kind
that is annotated elsewhere shows none. Questions are about whole videos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from collect.data.perception_test import Video
from collect.tokens.grid import TokenGrid
from features.labels import events, questions, scenes, things
from features.labels.geometry import box_areas, cover_fractions, hidden_tracks, track_boxes
from features.labels.names import is_whole, object_names
from features.labels.unit_labels import MIN_COVER, Carrier, Space, VideoLabels, collect_labels

SCENE_AREA = 0.5
"""Share of the frame from which on a box is the scene rather than a thing in it."""

OBJECTS = Space("object", "token")
PARTS, SIGHTS, STATES, ROLES = (Space(kind, "token") for kind in ("part", "sight", "state", "role"))
SCENES, QUESTIONS = Space("scene", "frame"), Space("question", "video")
LIGHT = Space("light", "frame")
EVENTS = (Space("action", "token"), Space("action", "frame"), Space("sound", "token"), Space("sound", "frame"))
PLACES, TIMES = Space("place", "token"), Space("time", "token")
ANNOTATED = (OBJECTS, *EVENTS, PARTS, SIGHTS, STATES, ROLES, SCENES, QUESTIONS, LIGHT)
"""Spaces whose labels come from annotations or pictures, so that giving a video those of another changes them."""
ASKED = (OBJECTS, *EVENTS)
"""Spaces each of whose labels enters the tests with its best latents, whether or not a latent follows it most."""
SPACES = (*ANNOTATED, PLACES, TIMES)
KINDS = tuple(dict.fromkeys(space.kind for space in SPACES))
Vocabulary = Mapping[Space, tuple[str, ...]]


def names_of(video: Video) -> dict[Space, frozenset[str]]:
    """Names that a video's annotations contribute to each space; what has no word in its label contributes none."""
    named = {
        OBJECTS: frozenset(name for track in video.tracks for name in object_names(track.label)),
        PARTS: things.part_names(video),
        SIGHTS: things.sight_names(video),
        STATES: things.state_names(video),
        ROLES: events.role_names(video),
        SCENES: scenes.scene_names(video),
        QUESTIONS: questions.question_names(video),
    }
    for space in EVENTS:
        segments = video.actions if space.kind == "action" else video.sounds
        named[space] = events.token_names(segments) if space.level == "token" else events.frame_names(segments)
    return {space: frozenset(filter(is_whole, names)) for space, names in named.items()}


def is_derived(name: str) -> bool:
    """Whether a plainer or more specific name should stand for it: of any object in a role or state, or of a moment."""
    plain = name.removeprefix(things.CENTRE)
    of_any = name.endswith(f" {things.THING}") or plain.startswith(("actor of ", "object of "))
    return of_any or name.endswith(" begins") or name.startswith(("after ", "since "))


def label_video(video: Video, grid: TokenGrid, vocabulary: Vocabulary) -> dict[Space, VideoLabels]:
    """Lay a video's annotations over a token grid: its own, or in a permutation another video's.

    Times are seconds from the start and boxes fractions of the frame, so that annotations keep their place in time and
    space on any grid.
    """
    laid = lay_tracks(video, grid)
    is_thing = laid.over_tokens(laid.is_thing)
    on_thing = np.any((laid.cover >= MIN_COVER) & is_thing, axis=0)
    every_frame = np.ones(grid.n_t, dtype=bool)
    labels: dict[Space, VideoLabels] = {}
    for space, names in vocabulary.items():
        if space == QUESTIONS:
            carriers = questions.question_carriers(video, names)
            labels[space] = collect_labels(names, carriers, eligible=np.ones(1, dtype=bool))
            continue
        carriers = _CARRIERS[space](video, grid, laid)
        if space == OBJECTS:
            near_thing = ((laid.cover > 0) & is_thing).any(axis=0)
            has_boxes = np.repeat(~np.isnan(laid.boxes[:, :, 0]).all(axis=0), len(laid.patches))
            labels[space] = collect_labels(names, carriers, eligible=on_thing, background=has_boxes & ~near_thing)
        else:
            labels[space] = collect_labels(
                names, carriers, eligible=on_thing if space.level == "token" else every_frame
            )
    return labels


def lay_tracks(video: Video, grid: TokenGrid) -> things.LaidTracks:
    """A video's tracks over the tokens of a grid."""
    half_frame_s = 0.5 / video.frame_rate if video.frame_rate else 0.0
    times_s = grid.spans_s.mean(axis=1) - half_frame_s
    boxes = track_boxes(video.tracks, times_s, half_frame_s)
    patches = grid.boxes.reshape(-1, 4)
    return things.LaidTracks(
        tracks=video.tracks,
        boxes=boxes,
        patches=patches,
        cover=cover_fractions(boxes, patches).reshape(len(video.tracks), grid.n_tokens),
        hidden=hidden_tracks(video.tracks, boxes, times_s),
        is_thing=box_areas(boxes) < SCENE_AREA,
    )


def _object_carriers(laid: things.LaidTracks) -> list[Carrier]:
    hidden = laid.over_tokens(laid.hidden)
    return [
        Carrier(names=object_names(track.label), degree=laid.cover[row], hidden=hidden[row])
        for row, track in enumerate(laid.tracks)
    ]


_CARRIERS: Mapping[Space, Callable[[Video, TokenGrid, things.LaidTracks], list[Carrier]]] = {
    OBJECTS: lambda _, __, laid: _object_carriers(laid),
    PARTS: lambda _, __, laid: things.part_carriers(laid),
    SIGHTS: lambda _, __, laid: things.sight_carriers(laid),
    STATES: lambda _, __, laid: things.state_carriers(laid),
    ROLES: lambda video, grid, laid: events.role_carriers(video, laid, grid.spans_s),
    SCENES: lambda video, _, laid: scenes.scene_carriers(video, laid),
    **{
        Space(kind, "frame"): (
            lambda video, grid, _, part=part: events.frame_carriers(getattr(video, part), grid.spans_s)
        )
        for kind, part in (("action", "actions"), ("sound", "sounds"))
    },
    **{
        Space(kind, "token"): (
            lambda video, grid, laid, part=part: events.token_carriers(
                getattr(video, part), laid.tracks, grid.spans_s, laid.cover
            )
        )
        for kind, part in (("action", "actions"), ("sound", "sounds"))
    },
}
