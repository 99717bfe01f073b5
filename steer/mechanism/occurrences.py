"""When what a subject counts happens: the annotated segments whose number is the right answer.

A question does not say which annotation it is about: "How many times does the lamp turn on?" is answered by the sound
of a click. So the label is the one whose segments are as many as the right answer says, in the train videos. Where no
label is, there are no annotated events, and a latent's own strong firing stands for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from ask.questions import Item
from collect.data.perception_test import Segment, Video
from features.labels.events import event_frames
from features.labels.names import normalise_name
from features.labels.unit_labels import MIN_COVER
from steer.codes import Scene, VideoCodes
from steer.edits.partners import true_count
from steer.edits.scopes import runs_of
from steer.reference import Reference

AGREES = 0.8
"""Share of the train questions whose right answer must be the number of the label's segments."""
LEAST_ITEMS = 3
STRONG = 0.5
"""Share of the 95 % quantile of a latent's active values from which it fires strongly."""


@dataclass(frozen=True, kw_only=True)
class EventLabel:
    """Segments whose number answers a subject's questions."""

    kind: Literal["action", "sound"]
    label: str
    agreement: float
    """Share of the train questions in which the numbers are equal."""

    def segments(self, video: Video) -> list[Segment] | None:
        """The video's segments of this label, of those that begin before its cut frame.

        None where such segments are not annotated, as in a silent video.
        """
        own = video.actions if self.kind == "action" else video.sounds
        if not own and self.kind == "sound":
            return None
        known = video.cut_frame is not None and video.frame_rate > 0
        end_s = (video.cut_frame or 0) / video.frame_rate if known else float("inf")
        return [segment for segment in own if normalise_name(segment.label) == self.label and segment.start_s < end_s]


def event_label(items: Sequence[Item], video: Callable[[str], Video]) -> EventLabel | None:
    """The label that agrees best with the right answers to some train questions; None where none agrees.

    Args:
        items: counting questions of one subject about train videos.
        video: the annotated video of an id.
    """
    equal: dict[tuple[Literal["action", "sound"], str], list[bool]] = defaultdict(list)
    names: dict[Literal["action", "sound"], set[str]] = {"action": set(), "sound": set()}
    videos = {item.video_id: video(item.video_id) for item in items}
    for each in videos.values():
        names["action"] |= {normalise_name(segment.label) for segment in each.actions}
        names["sound"] |= {normalise_name(segment.label) for segment in each.sounds}
    for item in items:
        for kind, labels in names.items():
            for label in labels:
                found = EventLabel(kind=kind, label=label, agreement=0.0).segments(videos[item.video_id])
                if found is not None:
                    equal[kind, label].append(len(found) == true_count(item))
    ranked = sorted(
        (
            (float(np.mean(agree)), len(agree), kind, label)
            for (kind, label), agree in equal.items()
            if len(agree) >= LEAST_ITEMS and np.mean(agree) >= AGREES
        ),
        key=lambda each: (-each[0], -each[1], each[2], each[3]),
    )
    if not ranked:
        return None
    agreement, _, kind, label = ranked[0]
    return EventLabel(kind="action" if kind == "action" else "sound", label=label, agreement=agreement)


def annotated_events(label: EventLabel, scene: Scene) -> list[Bool[np.ndarray, " n_t"]] | None:
    """Frames of each event of a video, in the order of time; None where such events are not annotated.

    Events that share a frame with another one are left out, as no edit could tell them apart.
    """
    segments = label.segments(scene.video)
    if segments is None:
        return None
    if not segments:
        return []
    frames = event_frames(sorted(segments, key=lambda each: each.start_s), scene.grid.spans_s) >= MIN_COVER
    alone = [row for row in frames if row.any() and not (frames[:, row].sum(axis=0) > 1).any()]
    return list(alone)


def strong_frames(codes: VideoCodes, latents: Sequence[int], usual: Reference, n_t: int) -> Bool[np.ndarray, " n_t"]:
    """Time steps in which a latent's largest activation reaches `STRONG` of its usual high value."""
    found = np.zeros(n_t, dtype=bool)
    per_step = codes.n_tokens // n_t
    for latent in latents:
        own = (codes.latent == latent) & (codes.value >= STRONG * usual.quantile(latent, 0.95))
        found[(codes.token[own] // per_step).cpu().numpy()] = True
    return found


def events_of(
    label: EventLabel | None, scene: Scene, codes: VideoCodes, latents: Sequence[int], usual: Reference
) -> list[Bool[np.ndarray, " n_t"]] | None:
    """Frames of each event of a video: of a label where there is one, else where the latents fire strongly."""
    return firing_events(codes, latents, usual, scene.grid.n_t) if label is None else annotated_events(label, scene)


def firing_events(
    codes: VideoCodes, latents: Sequence[int], usual: Reference, n_t: int
) -> list[Bool[np.ndarray, " n_t"]]:
    """Runs of frames in which a latent fires strongly."""
    runs = runs_of(strong_frames(codes, latents, usual, n_t))
    steps = np.arange(n_t)
    return [(steps >= first) & (steps <= last) for first, last in runs]
