"""Perception Test as it comes: videos in a folder, annotations in the benchmark's own JSON, cut frames beside them.

    DATA/videos/**/*.mp4              or the videos right in DATA (`collect.video_folder`)
    DATA/annotations/*.json           {video_id: {metadata, object_tracking, action_localisation, ...}}
    DATA/all_valid.json               the same right in DATA, under the names of the benchmark
    DATA/*.parquet                    questions from the hub (`collect.hub_questions`); also in DATA/annotations
    DATA/cut_frame_mapping_*.json     {video_id: frame}; also in DATA/annotations

Several files may speak of the same video, as where each task has its own; what two of them say alike counts once. A
folder of videos without annotations is a dataset without tracks, segments and questions. Point tracks and grounded
questions are not read.

Source: Pătrăucean et al., "Perception Test: A Diagnostic Benchmark for Multimodal Video Models", 2023, and the
repository google-deepmind/perception_test.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from collect.annotation import Question, Segment, Track, read_question, read_segment, read_track
from collect.errors import UserError
from collect.hub_questions import HubVideo, is_hub_name, parquet_files, read_hub, read_parquet
from collect.json_fields import Fields
from collect.printable import printable
from collect.video_file import DecodeError, Facts, probe
from collect.video_folder import VideoFiles, find_videos, listed, no_videos

logger = logging.getLogger(__name__)

DURATION_EDGES_S = (10.0, 20.0, 30.0)
OWN_NAMES = ("all_", "sample", "mc_question", "object_tracking", "action_localisation", "sound_localisation")
"""Beginnings of the names under which the benchmark's annotations may stand right in the data folder."""
UNKNOWN_SPLIT = "unknown"


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


def load_dataset(folder: Path, split: str | None = None, ids: Path | None = None) -> Dataset:
    """Read a folder of videos and annotations.

    Args:
        folder: in the layout that this module describes; or one .parquet file of such a folder; or the name of a data
            set of the hub, which has questions only.
        split: keep only the videos of this split, such as `valid`; None keeps all.
        ids: keep only the videos that this file names, as `read_ids` reads it; None keeps all.

    Raises:
        UserError: there is no such folder, no video in it (of that split, or of a named id), or an annotation file is
            malformed; then the message names file, video and field.
    """
    place, annotated, asked = _sources(folder)
    files = find_videos(place) if place.is_dir() else VideoFiles(paths={}, passed_over=())
    known = annotated.keys() | asked.keys()
    if not known and not files.paths:
        raise no_videos(folder, files)
    if known:
        cuts = _cut_frames(place)
        videos = [
            _video(
                video_id,
                annotated.get(video_id, []),
                asked.get(video_id, []),
                path=files.of(video_id),
                cut_frame=cuts.get(video_id),
            )
            for video_id in known
        ]
        left_out = files.not_among({video.path for video in videos if video.path is not None})
        if left_out:
            logger.info("%s: videos without annotation are left out: %s", printable(folder), listed(left_out))
    else:
        videos = [_bare_video(video_id, path) for video_id, path in files.paths.items()]
    splits = sorted({video.split for video in videos})
    chosen = [video for video in videos if split is None or video.split == split]
    if not chosen:
        raise UserError(f"{folder} holds no video of the split {split!r}: choose one of {', '.join(splits)}.")
    if ids is not None:
        chosen = _named(chosen, ids, folder)
    return Dataset(folder=folder, videos=tuple(sorted(chosen, key=lambda video: video.video_id)))


def read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of video ids: one a line, also the first column of a .csv; lines that begin with # do not count.

    Raises:
        UserError: the file is not there or names no video.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of video ids ({error}): give a text file.") from None
    names = (line.partition(",")[0].strip().strip('"').removesuffix(".mp4") for line in lines)
    found = tuple(dict.fromkeys(name for name in names if name and not name.startswith("#") and name != "video_id"))
    if not found:
        raise UserError(f"{path} names no video: write one video id a line.")
    return found


def _named(videos: Sequence[Video], ids: Path, folder: Path) -> list[Video]:
    by_id = {video.video_id: video for video in videos}
    wanted = read_ids(ids)
    missing = [video_id for video_id in wanted if video_id not in by_id]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} videos of {ids}, such as {missing[0]!r}: "
            "take them out of the list, or give the folder and the split that hold them."
        )
    return [by_id[video_id] for video_id in wanted]


def _sources(folder: Path) -> tuple[Path, dict[str, list[Fields]], dict[str, list[HubVideo]]]:
    """The folder that holds the videos, and per video what JSON files and what tables of questions say about it."""
    if folder.is_dir():
        return folder, _annotations(folder), read_parquet(parquet_files(folder))
    if folder.is_file() and folder.suffix == ".parquet":
        return folder.parent, {}, read_parquet([folder])
    if is_hub_name(folder):
        return folder, {}, read_hub(folder.as_posix())
    raise UserError(f"There is no folder {folder}: give the folder that holds `videos` and `annotations`.")


def _annotations(folder: Path) -> dict[str, list[Fields]]:
    """Per video, what each annotation file says about it."""
    found: dict[str, list[Fields]] = {}
    own = (path for path in folder.glob("*.json") if path.name.startswith(OWN_NAMES))
    for path in (*sorted(own), *sorted((folder / "annotations").glob("*.json"))):
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


def _bare_video(video_id: str, path: Path | None, split: str = UNKNOWN_SPLIT) -> Video:
    """A video of which only its file is known, if that."""
    try:
        facts = Facts(frame_rate=0.0, n_frames=0, height=0, width=0) if path is None else probe(path)
    except DecodeError:  # told when the video is collected
        facts = Facts(frame_rate=0.0, n_frames=0, height=0, width=0)
    return Video(
        video_id=video_id,
        path=path,
        split=split,
        frame_rate=facts.frame_rate,
        n_frames=facts.n_frames,
        height=facts.height,
        width=facts.width,
    )


def _video(
    video_id: str, sources: Sequence[Fields], asked: Sequence[HubVideo], *, path: Path | None, cut_frame: int | None
) -> Video:
    described = [source for source in sources if source.has("metadata")]
    if sources and not described:
        raise sources[0].error("metadata", "an object")
    if described:
        video = _described_video(video_id, described[0].child("metadata"), path)
    else:
        video = _bare_video(video_id, path, asked[0].split)
    questions = _records("mc_question", sources) or _records("mc_question", [table.fields for table in asked])
    return replace(
        video,
        cut_frame=cut_frame,
        tracks=tuple(read_track(record) for record in _records("object_tracking", sources)),
        actions=tuple(read_segment(record, sound=False) for record in _records("action_localisation", sources)),
        sounds=tuple(read_segment(record, sound=True) for record in _records("sound_localisation", sources)),
        questions=tuple(read_question(record, video_id) for record in questions),
    )


def _described_video(video_id: str, metadata: Fields, path: Path | None) -> Video:
    height, width = metadata.integers("resolution", n=2)
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
    )


def _records(name: str, sources: Sequence[Fields]) -> list[Fields]:
    """The entries of a task; those that several sources have count once."""
    found: list[Fields] = []
    for source in sources:
        earlier = {record.integer("id", or_text=True): record for record in found}
        for record in source.children(name):
            twin = earlier.get(record.integer("id", or_text=True))
            if twin is None:
                found.append(record)
            elif not twin.equals(record):
                raise record.conflict(twin)
    return found
