"""The JSON files of a data folder: which are annotations, and of which videos, in any of the usual shapes.

    {video_id: {part: [entry, ...], ...}}             the benchmark's own; `metadata` may be missing
    {video_id: [question, ...]}                       as the challenge publishes questions
    {part: [entry, ...], ...}                         one video, named by `video_id`, its metadata, or the file
    [{"video_id": ..., ...}, ...]                     a list of questions, or of videos, which name their video

Files in `annotations` must be annotations, or they are refused. The data folder itself may contain other JSON: files
there that look like none of the above are skipped. Ids may end in the suffix of a video file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import CONFIG_NAME
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.artefact.stage import SUMMARY_NAME
from collect.data.findings import Findings
from collect.data.video_ids import plain_id
from collect.errors import UserError
from collect.printable import printable

TRACKS, ACTIONS, SOUNDS, QUESTIONS = "object_tracking", "action_localisation", "sound_localisation", "mc_question"
PARTS = (TRACKS, ACTIONS, SOUNDS, QUESTIONS)
UNREAD_PARTS = ("point_tracking", "grounded_question")
CUTS = "cut_frame_mapping"
"""How the names of files of cut frames begin."""
REMEDY = "mend the file, fetch it again, or move it out of the data folder"
_OWN_NAMES = ("all_", "sample", "challenge_", "sot_", *PARTS, *UNREAD_PARTS)
"""Beginnings of the benchmark's names; such files are annotations wherever they lie."""
_VIDEO_NAMES = ("video_id", "video_name", "video")


@dataclass(frozen=True, kw_only=True)
class Source:
    """What one file says about one video."""

    file: Path
    video_id: str
    fields: Fields
    """An object in the benchmark's own schema; `metadata` and every part may be missing."""


def own_records(folder: Path) -> list[Path]:
    """Files that `video-sae` writes into a data folder: about a download, and about a world that it made."""
    names = ["download.json", CONFIG_NAME]
    if (folder / CONFIG_NAME).is_file():
        names.append(SUMMARY_NAME)
    return [folder / name for name in names]


def annotation_files(folder: Path) -> list[Path]:
    """The JSON files that may hold annotations: those of the folder, then those of `annotations` in it."""
    own = own_records(folder)
    return [
        path
        for place in (folder, folder / "annotations")
        for path in sorted(place.glob("*.json"))
        if not path.name.startswith(CUTS) and path not in own
    ]


def deeper_annotations(folder: Path) -> list[Path]:
    """Folders below a data folder that would have annotations if they were given in its place."""
    places = (path.parent for path in folder.rglob("annotations/*.json") if not path.name.startswith(CUTS))
    return sorted({place.parent for place in places} - {folder})


def read_annotations(folder: Path, findings: Findings) -> list[Source]:
    """Read what all annotation files of a folder say, video by video.

    Args:
        folder: the data folder.
        findings: where files that are skipped or not read are reported.
    """
    found: list[Source] = []
    for path in annotation_files(folder):
        must = path.parent != folder or path.name.startswith(_OWN_NAMES)
        try:
            content = read_json(path, REMEDY)
        except UserError as error:
            if must:
                findings.fault(error)
            else:
                findings.warn(printable(path, 4096), "this is no JSON file", "it is passed over", str(error))
            continue
        if not must and not _looks_annotated(content):
            findings.note(printable(path, 4096), "this JSON file holds no annotations", "it is passed over")
            continue
        try:
            found += [
                Source(file=path, video_id=video_id, fields=fields) for video_id, fields in _videos_of(content, path)
            ]
        except UserError as error:
            findings.fault(error)
    return found


def _looks_annotated(content: object) -> bool:
    """Whether a file of any name holds a part or a question in a place where one would be."""
    if isinstance(content, list):
        return any(_is_question(item) or _has_part(item) for item in cast("list[object]", content))
    if not isinstance(content, dict):
        return False
    values = cast("dict[str, object]", content).values()
    return _has_part(content) or any(_has_part(value) or _is_questions(value) for value in values)


def _has_part(content: object) -> bool:
    return isinstance(content, dict) and any(name in content for name in (*PARTS, *UNREAD_PARTS))


def _is_question(content: object) -> bool:
    return isinstance(content, dict) and "question" in content and "options" in content


def _is_questions(content: object) -> bool:
    return isinstance(content, list) and any(_is_question(item) for item in cast("list[object]", content))


def _videos_of(content: object, path: Path) -> Iterator[tuple[str, Fields]]:
    """Video id and object in the benchmark's schema of each video, whatever the shape of the file."""
    shown = printable(path, 4096)
    if isinstance(content, list):
        yield from _listed(cast("list[object]", content), shown)
        return
    if not isinstance(content, dict):
        raise UserError(f"{shown} is neither a JSON object keyed by video id nor a list: {REMEDY}.")
    record = cast("dict[str, Any]", content)
    if any(isinstance(record.get(name), list) for name in (*PARTS, *UNREAD_PARTS)):
        named = _named(record)
        if named is None and isinstance(record.get("metadata"), dict):
            named = _named(record["metadata"])
        video_id = plain_id(named or path.stem)
        yield video_id, Fields(record, _place(shown, video_id))
        return
    for name, value in record.items():
        video_id = plain_id(name)
        if isinstance(value, list):
            if value and not _is_questions(value):
                raise UserError(
                    f"{_place(shown, video_id)} is a list of something else than `question` and `options`: {REMEDY}."
                )
            value = {QUESTIONS: value}
        yield video_id, Fields(value, _place(shown, video_id))


def _listed(items: list[object], shown: str) -> Iterator[tuple[str, Fields]]:
    questions: dict[str, list[object]] = {}
    for number, item in enumerate(items):
        record = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        metadata = record.get("metadata")
        named = _named(record) or (_named(cast("dict[str, Any]", metadata)) if isinstance(metadata, dict) else None)
        if named is None:
            raise UserError(
                f"{shown}[{number}] does not name its video in `video_id`: add it, or key the file by video id."
            )
        video_id = plain_id(named)
        if _has_part(record):
            yield video_id, Fields(record, _place(shown, video_id))
        else:
            questions.setdefault(video_id, []).append(item)
    for video_id, asked in questions.items():
        yield video_id, Fields({QUESTIONS: asked}, _place(shown, video_id))


def _named(record: dict[str, Any]) -> str | None:
    names = [record[name] for name in _VIDEO_NAMES if isinstance(record.get(name), str) and record[name]]
    return names[0] if names else None


def _place(shown: str, video_id: str) -> str:
    return f"{shown}: video '{printable(video_id)}'"


def cut_frame_files(folder: Path) -> list[Path]:
    """The files of cut frames, in the folder and in `annotations`."""
    return [path for place in (folder, folder / "annotations") for path in sorted(place.glob(f"{CUTS}*.json"))]


def read_cut_frames(folder: Path, findings: Findings) -> dict[str, int]:
    """Video id -> the frame before which questions end, for videos that have one."""
    found: dict[str, int] = {}
    for path in cut_frame_files(folder):
        try:
            fields = Fields(read_json(path, REMEDY), printable(path, 4096))
            cuts = {plain_id(name): fields.integer(name, or_text=True) for name in fields.names()}
        except UserError as error:
            findings.fault(error)
            continue
        for video_id, frame in cuts.items():
            if found.get(video_id, frame) != frame and frame > 0:
                findings.refuse(
                    _place(printable(path, 4096), video_id),
                    "another file cuts this video elsewhere",
                    "remove one of the two",
                    f"before frame {found[video_id]}, not {frame}",
                )
            if frame > 0:
                found[video_id] = frame
    return found
