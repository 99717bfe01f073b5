"""Perception Test as it comes: videos in a folder, annotations in the benchmark's own JSON, cut frames beside them.

    DATA/videos/*.mp4                 or the videos right in DATA
    DATA/annotations/*.json           {video_id: {metadata, object_tracking, action_localisation, ...}}
    DATA/cut_frame_mapping_*.json     {video_id: frame}; also in DATA/annotations

Several annotation files may speak of the same video, as where each task has its own. A folder of videos without
annotations is a dataset without tracks, segments and questions. Point tracks and grounded questions are not read.

Source: Pătrăucean et al., "Perception Test: A Diagnostic Benchmark for Multimodal Video Models", 2023, and the
repository google-deepmind/perception_test.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float64, Int64

from collect.errors import UserError
from collect.json_fields import Fields
from collect.video_file import DecodeError, probe

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
DURATION_EDGES_S = (10.0, 20.0, 30.0)
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


@dataclass(frozen=True, kw_only=True)
class Video:
    """One video with everything that is annotated about it."""

    video_id: str
    path: Path | None
    """None where the annotated video is not in the folder."""
    split: str
    frame_rate: float
    """Frames a second; 0 where neither annotation nor file says."""
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
    def strata(self) -> tuple[bool, bool, int]:
        """(camera moving, cup game, duration bin); annotations are permuted between videos of one stratum only."""
        return self.is_camera_moving, self.is_cup_game, int(np.digitize(self.duration_s, DURATION_EDGES_S))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The videos of one folder, sorted by id."""

    folder: Path
    videos: tuple[Video, ...]

    @cached_property
    def _by_id(self) -> dict[str, Video]:
        return {video.video_id: video for video in self.videos}

    def video(self, video_id: str) -> Video:
        """Find a video.

        Raises:
            UserError: the dataset has no such video.
        """
        if video_id not in self._by_id:
            raise UserError(f"{self.folder} has no video {video_id!r}: give the folder that holds it.")
        return self._by_id[video_id]

    @property
    def videos_with_files(self) -> tuple[Video, ...]:
        """The videos whose files are in the folder."""
        return tuple(video for video in self.videos if video.path is not None)


def load_dataset(folder: Path, split: str | None = None) -> Dataset:
    """Read a folder of videos and annotations.

    Args:
        folder: in the layout that this module describes.
        split: keep only the videos of this split, such as `valid`; None keeps all.

    Raises:
        UserError: there is no such folder, no video in it (of that split), or an annotation file is malformed; then
            the message names file, video and field.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: give the folder that holds `videos` and `annotations`.")
    paths = _video_files(folder)
    annotated = _annotations(folder)
    if not annotated and not paths:
        raise UserError(f"{folder} holds no videos: put them into {folder / 'videos'}, as .mp4 files for instance.")
    if annotated:
        cuts = _cut_frames(folder)
        videos = [
            _video(video_id, fields, path=paths.get(video_id), cut_frame=cuts.get(video_id))
            for video_id, fields in annotated.items()
        ]
        left_out = len(paths.keys() - annotated.keys())
        if left_out:
            logger.info("%s: %d video files have no annotation and are left out", folder, left_out)
    else:
        videos = [_bare_video(video_id, path) for video_id, path in paths.items()]
    splits = sorted({video.split for video in videos})
    chosen = [video for video in videos if split is None or video.split == split]
    if not chosen:
        raise UserError(f"{folder} holds no video of the split {split!r}: choose one of {', '.join(splits)}.")
    return Dataset(folder=folder, videos=tuple(sorted(chosen, key=lambda video: video.video_id)))


def _video_files(folder: Path) -> dict[str, Path]:
    place = folder / "videos" if (folder / "videos").is_dir() else folder
    files = sorted(p for p in place.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise UserError(f"{found[path.stem]} and {path} have one name: rename or remove one of them.")
        found[path.stem] = path
    return found


def _annotations(folder: Path) -> dict[str, list[Fields]]:
    """Per video, what each annotation file says about it."""
    found: dict[str, list[Fields]] = {}
    for path in sorted((folder / "annotations").glob("*.json")):
        if path.name.startswith("cut_frame_mapping"):
            continue
        for video_id, content in _read_object(path).items():
            found.setdefault(video_id, []).append(Fields(content, f"{path}: video {video_id!r}"))
    return found


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch it again or remove it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object keyed by video id: fetch it again or remove it.")
    return cast("dict[str, Any]", content)


def _cut_frames(folder: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    paths = [p for place in (folder, folder / "annotations") for p in sorted(place.glob("cut_frame_mapping*.json"))]
    for path in paths:
        fields = Fields(_read_object(path), str(path))
        cuts = {video_id: fields.integer(video_id) for video_id in fields.names()}
        found.update({video_id: frame for video_id, frame in cuts.items() if frame > 0})
    return found


def _bare_video(video_id: str, path: Path) -> Video:
    try:
        facts = probe(path)
    except DecodeError:  # told when the video is collected
        return Video(video_id=video_id, path=path, split="unknown", frame_rate=0.0, n_frames=0, height=0, width=0)
    return Video(
        video_id=video_id,
        path=path,
        split="unknown",
        frame_rate=facts.frame_rate,
        n_frames=facts.n_frames,
        height=facts.height,
        width=facts.width,
    )


def _video(video_id: str, sources: list[Fields], *, path: Path | None, cut_frame: int | None) -> Video:
    metadata = sources[0].child("metadata")
    height, width = metadata.integers("resolution", n=2)

    def records(name: str) -> Iterable[Fields]:
        return (record for source in sources for record in source.children(name))

    return Video(
        video_id=video_id,
        path=path,
        split=metadata.text("split"),
        frame_rate=metadata.positive("frame_rate"),
        n_frames=metadata.integer("num_frames"),
        height=height,
        width=width,
        is_cup_game=metadata.flag("is_cup_game"),
        is_camera_moving=metadata.flag("is_camera_moving"),
        cut_frame=cut_frame,
        tracks=tuple(_track(record) for record in records("object_tracking")),
        actions=tuple(_segment(record, sound=False) for record in records("action_localisation")),
        sounds=tuple(_segment(record, sound=True) for record in records("sound_localisation")),
        questions=tuple(_question(record, video_id) for record in records("mc_question")),
    )


def _track(fields: Fields) -> Track:
    frame_ids = fields.integers("frame_ids")
    times = fields.numbers("timestamps", n=len(frame_ids))
    return Track(
        id=fields.integer("id"),
        label=fields.text("label"),
        is_occluder=fields.flag("is_occluder"),
        is_masked=fields.flag("is_masked"),
        boxes=np.array(fields.rows("bounding_boxes", n=len(frame_ids), width=4), dtype=np.float64).reshape(-1, 4),
        frame_ids=np.array(frame_ids, dtype=np.int64),
        times_s=np.array(times, dtype=np.float64) / MICROSECONDS,
    )


def _segment(fields: Fields, *, sound: bool) -> Segment:
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


def _question(fields: Fields, video_id: str) -> Question:
    options = tuple(fields.texts("options"))
    answer_id = fields.integer("answer_id") if fields.has("answer_id") else ANSWER_WITHHELD
    if not ANSWER_WITHHELD <= answer_id < len(options):
        raise fields.error("answer_id", f"one of the {len(options)} options, counted from 0")
    return Question(
        id=fields.integer("id"),
        video_id=video_id,
        question=fields.text("question"),
        options=options,
        answer_id=answer_id,
        area=fields.text("area"),
        reasoning=fields.text("reasoning"),
        tag=tuple(fields.texts("tag")),
    )
