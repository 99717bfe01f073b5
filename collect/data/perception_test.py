"""Perception Test as published, and data that others write in its schema: videos in a folder, annotations, cut frames.

    DATA/videos/**/*.mp4              or the videos directly in DATA (`collect.video.folder`)
    DATA/annotations/*.json           {video_id: {metadata, object_tracking, action_localisation, ...}}
    DATA/*.json                       the same, directly in DATA; files without annotations are skipped there
    DATA/*.parquet                    questions from the hub (`collect.data.hub_questions`); also in DATA/annotations
    DATA/cut_frame_mapping_*.json     {video_id: frame}; also in DATA/annotations

Several files may be about the same video, for example one for each task; what two of them say in the same way counts
once. A folder of videos without annotations is a dataset without tracks, segments and questions. What `metadata` leave
out comes from the video file. Point tracks and grounded questions are not read. `docs/formats.md` has the whole schema.

Source: Pătrăucean et al., "Perception Test: A Diagnostic Benchmark for Multimodal Video Models", 2023, and the
repository google-deepmind/perception_test.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from collect.artefact.json_fields import Fields
from collect.data.annotated_parts import Clock, segments_of, tracks_of
from collect.data.annotation import Question, Segment, Track, Video, read_question, read_segment, read_track
from collect.data.annotation_entries import Entry, entries, read_each
from collect.data.annotation_files import ACTIONS, QUESTIONS, SOUNDS, TRACKS, Source, read_annotations, read_cut_frames
from collect.data.findings import Findings
from collect.data.hub_questions import HubVideo, is_hub_name, parquet_files, read_hub, read_parquet
from collect.data.plausibility import check_video, compare_with_file
from collect.data.video_ids import plain_id, read_ids
from collect.errors import UserError
from collect.printable import printable
from collect.video.file import DecodeError, Facts, probe
from collect.video.folder import VideoFiles, find_videos, listed, log_passed_over, no_videos

__all__ = ["Dataset", "Question", "Segment", "Track", "Video", "load_dataset", "read_ids", "read_videos"]

logger = logging.getLogger(__name__)

UNKNOWN_SPLIT = "unknown"
SPLITS = {"validation": "valid", "val": "valid", "dev": "valid", "training": "train", "testing": "test"}
"""Other people's names of the official splits."""
N_COMPARED = 16
"""Videos whose metadata are compared with their files whenever the data is read; `video-sae check` compares all."""


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
        UserError: there is no such folder, no video in it (of that split, or with a named id), or an annotation file is
            malformed; in that case the message names file, video and field.
    """
    findings = Findings()
    files = _files(folder)
    log_passed_over(files)
    videos = read_videos(folder, files, findings)
    compared = [video for video in videos if video.path is not None][:N_COMPARED]
    for video in compared:
        compare_with_file(video, findings)
    findings.log(logger)
    splits = sorted({video.split for video in videos})
    chosen = [video for video in videos if split is None or video.split == SPLITS.get(split, split)]
    if not chosen:
        raise UserError(f"{folder} holds no video of the split {split!r}: choose one of {', '.join(splits)}.")
    if ids is not None:
        chosen = _named(chosen, ids, folder)
    return Dataset(folder=folder, videos=tuple(sorted(chosen, key=lambda video: video.video_id)))


def read_videos(folder: Path, files: VideoFiles, findings: Findings) -> list[Video]:
    """Read all videos of a folder, as `load_dataset` does, and report what is wrong or odd.

    Args:
        folder: as for `load_dataset`.
        files: the video files that are there.
        findings: where to report.

    Raises:
        UserError: there is no such folder or no video in it; and, unless `findings` collects refusals, the first thing
            that cannot be read.
    """
    place, sources, asked = _sources(folder, findings)
    by_video: dict[str, list[Source]] = {video_id: [] for video_id in asked}
    for source in sources:
        by_video.setdefault(source.video_id, []).append(source)
    if not by_video and not files.paths:
        raise no_videos(folder, files)
    if not by_video:
        return [_bare_video(video_id, path) for video_id, path in files.paths.items()]
    cuts = read_cut_frames(place, findings)
    videos = {
        video_id: replace(
            _described(video_id, own, asked.get(video_id, []), _file_of(video_id, files, findings), findings),
            cut_frame=cuts.get(video_id),
        )
        for video_id, own in by_video.items()
    }
    videos = _with_own_files(videos, files, printable(folder, 4096), findings)
    left_out = files.not_among({video.path for video in videos.values() if video.path is not None})
    if left_out:
        findings.note(
            printable(folder, 4096),
            "video files without annotations",
            "they are left out",
            f"{len(left_out):,} of {len(files.paths):,}: {listed(left_out)}",
        )
    return _annotated(videos, by_video, asked, findings)


def _file_of(video_id: str, files: VideoFiles, findings: Findings) -> Path | None:
    try:
        return files.of(video_id)
    except UserError as error:
        findings.fault(error)
        return None


def _with_own_files(videos: Mapping[str, Video], files: VideoFiles, place: str, findings: Findings) -> dict[str, Video]:
    """The videos, without files that belong to another annotated video by their whole names.

    A file in a folder also counts for an annotated video without the folder in its id, but not for both: one of them
    might be held out, and the other not.
    """
    owners = {path: own for own, path in files.paths.items() if own in videos}
    found = dict(videos)
    for video_id, video in videos.items():
        owner = video_id if video.path is None else owners.get(video.path, video_id)
        if owner != video_id:
            found[video_id] = replace(video, path=None)
            detail = f"'{printable(video_id)}' besides '{printable(owner)}', {printable(video.path, 4096)}"
            findings.warn(
                place, "a video file could be that of two annotated videos", "the first is left without one", detail
            )
    return found


def _annotated(
    videos: Mapping[str, Video],
    sources: Mapping[str, Sequence[Source]],
    asked: Mapping[str, Sequence[HubVideo]],
    findings: Findings,
) -> list[Video]:
    """The videos with their tracks, segments and questions."""
    clocks = {
        video_id: Clock(frame_rate=v.frame_rate, n_frames=v.n_frames, height=v.height, width=v.width)
        for video_id, v in videos.items()
    }

    def all_of(part: str) -> list[Entry]:
        return [entry for own in sources.values() for entry in entries(part, own, findings)]

    def segments(part: str, *, sound: bool) -> dict[str, list[Segment]]:
        raw = read_each(all_of(part), lambda entry: read_segment(entry.fields, entry.id, sound=sound), findings)
        return segments_of(raw, part, clocks, findings)

    raw_tracks = read_each(all_of(TRACKS), lambda entry: read_track(entry.fields, entry.id), findings)
    tracks = tracks_of(raw_tracks, clocks, findings)
    actions, sounds = segments(ACTIONS, sound=False), segments(SOUNDS, sound=True)
    found: list[Video] = []
    for video_id, video in videos.items():
        own = entries(QUESTIONS, sources[video_id], findings)
        if not own:
            tables = [Source(file=Path(), video_id=video_id, fields=table.fields) for table in asked.get(video_id, [])]
            own = entries(QUESTIONS, tables, findings)
        questions = read_each(own, lambda entry: read_question(entry.fields, entry.video_id, entry.id), findings)
        whole = replace(
            video,
            tracks=tuple(tracks.get(video_id, ())),
            actions=tuple(actions.get(video_id, ())),
            sounds=tuple(sounds.get(video_id, ())),
            questions=tuple(question for _, question in questions),
        )
        places = {QUESTIONS: own[0].fields.place} if own else {}
        check_video(whole, sources[video_id][0].fields.place if sources[video_id] else places[QUESTIONS], findings)
        found.append(whole)
    return found


def _named(videos: Sequence[Video], ids: Path, folder: Path) -> list[Video]:
    by_id = {video.video_id: video for video in videos}
    wanted = read_ids(ids)
    missing = [video_id for video_id in wanted if video_id not in by_id]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of the {len(wanted)} videos of {ids}, such as '{printable(missing[0])}': "
            "take them out of the list, or give the folder and the split that hold them."
        )
    return [by_id[video_id] for video_id in wanted]


def _sources(folder: Path, findings: Findings) -> tuple[Path, list[Source], dict[str, list[HubVideo]]]:
    """The folder that holds the videos, and what JSON files and, per video, what tables of questions say."""
    if folder.is_dir():
        return folder, read_annotations(folder, findings), _tables(folder, findings)
    if folder.is_file() and folder.suffix == ".parquet":
        return folder.parent, [], read_parquet([folder])
    if is_hub_name(folder):
        return folder, [], read_hub(folder.as_posix())
    raise UserError(f"There is no folder {folder}: give the folder that holds `videos` and `annotations`.")


def _tables(folder: Path, findings: Findings) -> dict[str, list[HubVideo]]:
    found: dict[str, list[HubVideo]] = {}
    for path in parquet_files(folder):
        try:
            for video_id, videos in read_parquet([path]).items():
                found.setdefault(video_id, []).extend(videos)
        except UserError as error:
            findings.fault(error)
    return found


def _files(folder: Path) -> VideoFiles:
    """The video files of what `load_dataset` takes; a data set of the hub has none."""
    place = folder.parent if folder.is_file() else folder
    return find_videos(place) if place.is_dir() else VideoFiles(paths={})


def _bare_video(video_id: str, path: Path | None, split: str = UNKNOWN_SPLIT) -> Video:
    """A video of which at most the file is known."""
    try:
        facts = Facts(frame_rate=0.0, n_frames=0, height=0, width=0) if path is None else probe(path)
    except DecodeError:  # reported when the video is collected
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


_NEEDED = ("frame_rate", "num_frames", "resolution")


def _described(
    video_id: str, sources: Sequence[Source], asked: Sequence[HubVideo], path: Path | None, findings: Findings
) -> Video:
    """A video from its metadata, and from its file where they leave something out."""
    described: list[Fields] = []
    for source in sources:
        try:
            described += [source.fields.child("metadata")] if source.fields.has("metadata") else []
        except UserError as error:
            findings.fault(error)
    bare = Video(
        video_id=video_id,
        path=path,
        split=asked[0].split if asked else UNKNOWN_SPLIT,
        frame_rate=0.0,
        n_frames=0,
        height=0,
        width=0,
    )
    if not all(any(metadata.has(name) for metadata in described) for name in _NEEDED):
        bare = _bare_video(video_id, path, bare.split)
    video = bare
    for metadata in reversed(described):  # the first file counts
        try:
            video = _with_metadata(video, metadata, findings)
        except UserError as error:
            findings.fault(error)
    if len(described) > 1:
        for metadata in described[1:]:
            differing = [
                name
                for name in (*_NEEDED, "split")
                if metadata.has(name) and described[0].has(name) and metadata.value(name) != described[0].value(name)
            ]
            if differing:
                findings.warn(
                    metadata.place,
                    "its metadata differ from another file's",
                    "the first file counts",
                    ", ".join(differing),
                )
    return video


def _with_metadata(video: Video, metadata: Fields, findings: Findings) -> Video:
    said = metadata.text("split") if metadata.has("split") else video.split
    split = SPLITS.get(said.lower(), said.lower() if said.lower() in SPLITS.values() else said)
    if split != said:
        findings.note(metadata.place, f"the split '{printable(said)}' is read as {split}", "that is its official name")
    if metadata.has("video_id") and metadata.value("video_id") != video.video_id:
        named = printable(metadata.value("video_id"))
        if video.video_id not in (plain_id(named), plain_id(named).rpartition("/")[2]):
            findings.warn(metadata.place, "its `video_id` is not its key", "the key counts", f"'{named}'")
    height, width = metadata.integers("resolution", n=2) if metadata.has("resolution") else (video.height, video.width)
    if min(height, width) < 0:
        raise metadata.error("resolution", "height and width in pixels")
    return replace(
        video,
        split=split,
        frame_rate=metadata.positive("frame_rate") if metadata.has("frame_rate") else video.frame_rate,
        n_frames=metadata.integer("num_frames") if metadata.has("num_frames") else video.n_frames,
        height=height,
        width=width,
        is_cup_game=metadata.flag("is_cup_game", absent=False),
        is_camera_moving=metadata.flag("is_camera_moving", absent=False),
    )
