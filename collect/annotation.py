"""What Perception Test says about one video: tracks, segments and questions, and how each is read from its JSON.

Source: the repository google-deepmind/perception_test, section on annotations.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from collect.json_fields import Fields

MICROSECONDS = 1e6
ANSWER_WITHHELD = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One object's identity over time, annotated about once a second; boxes persist while the object is hidden."""

    id: int
    label: str
    is_occluder: bool
    is_masked: bool
    boxes: Float64[np.ndarray, "n 4"]
    """(x1, y1, x2, y2), as fractions of the frame."""
    frame_ids: Int64[np.ndarray, " n"]
    times_s: Float64[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One action or sound from `start_s` (included) to `end_s` (excluded)."""

    id: int
    label: str
    label_id: int
    parent_objects: tuple[int, ...]
    """Ids of the tracks that take part; -1 stands for an object that is not annotated."""
    start_s: float
    end_s: float
    is_visible: bool | None = None
    """For sounds: whether what makes the sound is in view. None for actions."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One multiple-choice question about one video."""

    id: int
    video_id: str
    question: str
    options: tuple[str, ...]
    answer_id: int
    """Index of the right option; `ANSWER_WITHHELD` in the test split."""
    area: str
    reasoning: str
    tag: tuple[str, ...]


def read_track(fields: Fields) -> Track:
    """Read one entry of `object_tracking`."""
    frame_ids = fields.integers("frame_ids")
    times = fields.numbers("timestamps", n=len(frame_ids))
    return Track(
        id=fields.integer("id"),
        label=fields.text("label"),
        is_occluder=fields.flag("is_occluder", absent=False),
        is_masked=fields.flag("is_masked", absent=False),
        boxes=np.array(fields.rows("bounding_boxes", n=len(frame_ids), width=4), dtype=np.float64).reshape(-1, 4),
        frame_ids=np.array(frame_ids, dtype=np.int64),
        times_s=np.array(times, dtype=np.float64) / MICROSECONDS,
    )


def read_segment(fields: Fields, *, sound: bool) -> Segment:
    """Read one entry of `action_localisation` or `sound_localisation`."""
    start, end = fields.numbers("timestamps", n=2)
    return Segment(
        id=fields.integer("id"),
        label=fields.text("label"),
        label_id=fields.integer("label_id"),
        parent_objects=tuple(fields.integers("parent_objects")),
        start_s=start / MICROSECONDS,
        end_s=end / MICROSECONDS,
        is_visible=fields.flag("is_visible") if sound else None,
    )


def read_question(fields: Fields, video_id: str) -> Question:
    """Read one entry of `mc_question`; ids may be numbers or their text."""
    options = tuple(fields.texts("options"))
    answer_id = fields.integer("answer_id", or_text=True) if fields.has("answer_id") else ANSWER_WITHHELD
    if not ANSWER_WITHHELD <= answer_id < len(options):
        raise fields.error("answer_id", f"one of the {len(options)} options, counted from 0")
    return Question(
        id=fields.integer("id", or_text=True),
        video_id=video_id,
        question=fields.text("question"),
        options=options,
        answer_id=answer_id,
        area=fields.text("area"),
        reasoning=fields.text("reasoning"),
        tag=tuple(fields.texts("tag")),
    )
