"""What Perception Test says about one video: tracks, segments and questions, and how each entry is read from its JSON.

An entry is read as it is written. The units of its boxes and times are decided for a whole file
(`collect.data.annotation_units`), and only then does it become a `Track` or a `Segment`.

Source: the repository google-deepmind/perception_test, section on annotations.
"""

import string
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Bool, Float64, Int64

from collect.artefact.json_fields import Fields
from collect.errors import UserError

ANSWER_WITHHELD = -1
DURATION_EDGES_S = (10.0, 20.0, 30.0)
NO_CLASS = -1
"""`label_id` of a segment that has none."""
NOT_ANNOTATED = -1
"""Among `parent_objects`, an object without a track."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One object's identity over time, annotated about once per second; boxes persist while the object is hidden."""

    id: int
    label: str
    is_occluder: bool
    is_masked: Bool[np.ndarray, " n"]
    """Whether the object is hidden from view in each annotated frame."""
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
    """Number of the class in the benchmark; `NO_CLASS` if the file has none."""
    parent_objects: tuple[int, ...]
    """Ids of the tracks that take part; `NOT_ANNOTATED` stands for an object without one."""
    start_s: float
    end_s: float
    is_visible: bool | None = None
    """For sounds: whether the source of the sound is in view. None for actions, and if the file does not say."""


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


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video with everything that is annotated about it."""

    video_id: str
    path: Path | None
    """None if the annotated video is not in the folder."""
    split: str
    frame_rate: float
    """Frames per second; 0 if neither annotation nor file says."""
    n_frames: int
    height: int
    width: int
    is_cup_game: bool = False
    is_camera_moving: bool = False
    cut_frame: int | None = None
    """Questions may only be asked of the frames before this one, because the rest gives answers away."""
    tracks: tuple[Track, ...] = ()
    actions: tuple[Segment, ...] = ()
    sounds: tuple[Segment, ...] = ()
    questions: tuple[Question, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length of the whole video in seconds."""
        return self.n_frames / self.frame_rate if self.frame_rate else 0.0

    @property
    def is_annotated(self) -> bool:
        """Whether anything is annotated about it that a latent could be named by, or any question about it."""
        return bool(self.tracks or self.actions or self.sounds or self.questions)

    @property
    def strata(self) -> tuple[bool, bool, int]:
        """(camera moving, cup game, duration bin); annotations are permuted between videos of one stratum only."""
        return self.is_camera_moving, self.is_cup_game, int(np.digitize(self.duration_s, DURATION_EDGES_S))


@dataclass(frozen=True, kw_only=True, eq=False)
class RawTrack:
    """A track in the units of its file."""

    place: str
    """Where it is written, for messages."""
    id: int
    label: str
    is_occluder: bool
    is_masked: Bool[np.ndarray, " n"]
    boxes: Float64[np.ndarray, "n 4"]
    frame_ids: Int64[np.ndarray, " n"] | None
    stamps: Float64[np.ndarray, " n"] | None
    """Times of the annotated frames; frame ids, times or both are there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RawSegment:
    """A segment in the units of its file."""

    place: str
    id: int
    label: str
    label_id: int
    parent_objects: tuple[int, ...]
    is_visible: bool | None
    frame_ids: Int64[np.ndarray, " 2"] | None
    stamps: Float64[np.ndarray, " 2"] | None
    """Start and end; frame ids, times or both are there."""


def read_track(fields: Fields, track_id: int) -> RawTrack:
    """Read one entry of `object_tracking`, which has this id."""
    boxes = fields.rows("bounding_boxes", width=4)
    frame_ids, stamps = _moments(fields, len(boxes))
    return RawTrack(
        place=fields.place,
        id=track_id,
        label=fields.text("label"),
        is_occluder=fields.flag("is_occluder", absent=False),
        is_masked=np.array(fields.flags("is_masked", n=len(boxes)), dtype=bool),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        frame_ids=frame_ids,
        stamps=stamps,
    )


def read_segment(fields: Fields, segment_id: int, *, sound: bool) -> RawSegment:
    """Read one entry of `action_localisation` or `sound_localisation`, which has this id."""
    frame_ids, stamps = _moments(fields, 2)
    return RawSegment(
        place=fields.place,
        id=segment_id,
        label=fields.text("label"),
        label_id=fields.integer("label_id") if fields.has("label_id") else NO_CLASS,
        parent_objects=tuple(fields.integers("parent_objects", or_one=True)) if fields.has("parent_objects") else (),
        is_visible=fields.flag("is_visible") if sound and fields.is_said("is_visible") else None,
        frame_ids=frame_ids,
        stamps=stamps,
    )


def _moments(fields: Fields, n: int) -> tuple[Int64[np.ndarray, " n"] | None, Float64[np.ndarray, " n"] | None]:
    """Frame ids and times of `n` moments; one of the two may be missing."""
    has_frames, has_times = fields.has("frame_ids"), fields.has("timestamps")
    if n and not has_frames and not has_times:
        raise UserError(f"{fields.place} has neither `timestamps` nor `frame_ids`: add one of them.")
    frame_ids = np.array(fields.integers("frame_ids", n=n), dtype=np.int64) if has_frames else None
    stamps = np.array(fields.numbers("timestamps", n=n), dtype=np.float64) if has_times else None
    for name, values in (("frame_ids", frame_ids), ("timestamps", stamps)):
        if values is not None and (values < 0).any():
            raise fields.error(name, "numbers from 0 on")
    return frame_ids, stamps


def read_question(fields: Fields, video_id: str, question_id: int) -> Question:
    """Read one entry of `mc_question`, which has this id."""
    options = _options(fields)
    return Question(
        id=question_id,
        video_id=video_id,
        question=fields.text("question"),
        options=options,
        answer_id=_answer_id(fields, options),
        area=fields.text("area") if fields.has("area") else "",
        reasoning=fields.text("reasoning") if fields.has("reasoning") else "",
        tag=tuple(fields.texts("tag", or_one=True)) if fields.has("tag") else (),
    )


def _options(fields: Fields) -> tuple[str, ...]:
    """A list of texts or whole numbers, or an object whose keys are the letters A, B, C, … in this order."""
    options = fields.value("options")
    if isinstance(options, dict):
        lettered = cast("dict[str, object]", options)
        if list(lettered) != list(string.ascii_uppercase[: len(lettered)]):
            raise fields.error("options", "a list of texts")
        return tuple(Fields({"options": list(lettered.values())}, fields.place).texts("options", numbers=True))
    return tuple(fields.texts("options", numbers=True))


def _answer_id(fields: Fields, options: tuple[str, ...]) -> int:
    """Position of the right option, given as a number, its digits, its letter, or (in `answer`) its text."""
    found = [_position(fields, name, options) for name in ("answer_id", "answer") if fields.has(name)]
    if len(set(found)) > 1:
        raise fields.error("answer", "the option that `answer_id` names")
    return found[0] if found else ANSWER_WITHHELD


def _position(fields: Fields, name: str, options: tuple[str, ...]) -> int:
    value = fields.value(name)
    if name == "answer" and isinstance(value, str) and options.count(value) == 1:
        return options.index(value)
    letters = string.ascii_uppercase[: len(options)]
    if isinstance(value, str) and len(value) == 1 and value.upper() in letters:
        return letters.index(value.upper())
    position = fields.integer(name, or_text=True) if name == "answer_id" else len(options)
    if not ANSWER_WITHHELD <= position < len(options):
        what = "one of the {} options, counted from 0" if name == "answer_id" else "the text or letter of one of {}"
        raise fields.error(name, what.format(len(options)))
    return position
