"""`video-sae check`: reads a whole folder of data as the stages would, and lists everything it finds.

Of video files, the header and the first picture are read; no model is loaded. What is refused here
would end a stage, or be missing from it.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from collect.config import CheckConfig
from collect.data.annotation import Question, Video
from collect.data.annotation_files import annotation_files, cut_frame_files, own_records, read_cut_frames
from collect.data.counting import COUNTING_TAGS
from collect.data.findings import LEVELS, Finding, Findings
from collect.data.hub_questions import parquet_files
from collect.data.perception_test import read_videos
from collect.data.plausibility import check_answers, check_questions, compare_with_file
from collect.data.video_ids import read_ids
from collect.errors import UserError
from collect.printable import printable
from collect.video.file import DecodeError, probe
from collect.video.folder import VideoFiles, find_videos


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What was found, as it is printed, and the exit status that says whether something is refused."""

    findings: tuple[Finding, ...]
    counts: str

    @property
    def exit_status(self) -> int:
        """2 if something is refused, otherwise 0."""
        return 2 if any(finding.level == "refused" for finding in self.findings) else 0

    def __str__(self) -> str:
        numbers = Counter(finding.level for finding in self.findings)
        totals = ", ".join(f"{numbers[level]:,} {_WORDS[level][numbers[level] != 1]}" for level in LEVELS)
        lines = [f"{finding.level:8}{printable(finding, 4096)}" for finding in self.findings]
        return "\n".join([*lines, *([""] if lines else []), self.counts, totals])


_OVER = "it is passed over"
_WORDS = {"refused": ("refusal", "refusals"), "warning": ("warning", "warnings"), "note": ("note", "notes")}


def check(config: CheckConfig) -> CheckReport:
    """Check a folder of data.

    Raises:
        UserError: there is no such folder.
    """
    folder = config.data
    if not folder.is_dir():
        raise UserError(
            f"There is no folder {printable(folder, 4096)}: give the folder that holds `videos` and `annotations`."
        )
    findings = Findings(stop=False)
    videos: list[Video] = []
    files: VideoFiles | None = None
    try:
        files = find_videos(folder)
        videos = read_videos(folder, files, findings)
    except UserError as error:
        findings.fault(error)
    videos.sort(key=lambda video: video.video_id)
    if files is not None:
        _check_files(folder, videos, files, findings)
        _check_passed_over(folder, files, findings)
    _check_lists(folder, videos, findings)
    for video in videos:
        check_questions(video, f"video '{printable(video.video_id)}'", findings)
    check_answers([question for video in videos for question in video.questions], printable(folder, 4096), findings)
    return CheckReport(findings=findings.found, counts=_counts(videos, 0 if files is None else len(files.paths)))


def _check_files(folder: Path, videos: Sequence[Video], files: VideoFiles, findings: Findings) -> None:
    """Report video files that cannot be opened or contradict their metadata, and those without a counterpart."""
    place = printable(folder, 4096)
    read = {video.path: video for video in videos if video.path is not None}
    for path in tqdm(files.paths.values(), desc="check", unit="video", disable=len(files.paths) < 1000):
        try:
            facts = probe(path)
        except DecodeError as error:
            findings.fault(error)
            continue
        if path in read:
            compare_with_file(read[path], findings, facts)
    for path in files.not_among(read) if videos else ():
        findings.warn(printable(path, 4096), "this video has no annotation", "it is left out")
    absent = [video.video_id for video in videos if video.path is None]
    if not absent:
        return
    detail = f"{len(absent):,} of {len(videos):,}, such as '{printable(absent[0])}'"
    if len(absent) == len(videos):
        findings.refuse(
            place, "no annotated video has a file", "name the files as the annotations name the videos", detail
        )
    else:
        findings.warn(place, "annotated videos have no file", "they are left out", detail)


def _check_lists(folder: Path, videos: Sequence[Video], findings: Findings) -> None:
    """Report ids in lists and in files of cut frames that no video has."""
    known = {video.video_id for video in videos}
    for path in _lists(folder):
        try:
            named = read_ids(path)
        except UserError as error:
            findings.warn(printable(path, 4096), "this is no list of video ids", _OVER, str(error))
            continue
        _report_unknown(path, named, known, findings)
    cuts = read_cut_frames(folder, Findings(stop=False))
    if cut_frame_files(folder):
        _report_unknown(cut_frame_files(folder)[0], tuple(cuts), known, findings)


def _report_unknown(path: Path, named: Sequence[str], known: set[str], findings: Findings) -> None:
    unknown = [video_id for video_id in named if video_id not in known]
    if unknown:
        detail = f"{len(unknown):,} of {len(named):,}, such as '{printable(unknown[0])}'"
        findings.warn(printable(path, 4096), "it names videos that are not there", "they count for nothing", detail)


def _lists(folder: Path) -> list[Path]:
    places = (folder, folder / "annotations")
    return [path for place in places for suffix in ("csv", "txt") for path in sorted(place.glob(f"*.{suffix}"))]


def _check_passed_over(folder: Path, files: VideoFiles, findings: Findings) -> None:
    """Report files that no stage reads but somebody may expect to be read."""
    for path in files.not_utf8:
        findings.warn(
            printable(path, 4096), "its name is not UTF-8, which no table can hold", "it is passed over; rename it"
        )
    for path in files.no_files:
        findings.warn(printable(path, 4096), "there is no file at this name (a link to nothing, or a pipe)", _OVER)
    read = {*annotation_files(folder), *cut_frame_files(folder), *parquet_files(folder), *_lists(folder)}
    read |= {*files.paths.values(), *files.not_utf8, *own_records(folder)}
    around = [path for place in (folder, folder / "annotations") for path in place.glob("*") if path.is_file()]
    for path in sorted({*files.others, *files.beside, *around} - read):
        if not path.name.startswith("."):
            findings.warn(printable(path, 4096), "this is no file that is read", _OVER)


def _counts(videos: Sequence[Video], n_files: int) -> str:
    questions: list[Question] = [question for video in videos for question in video.questions]
    tracks = [track for video in videos for track in video.tracks]
    counting = sum(any(tag in COUNTING_TAGS for tag in question.tag) for question in questions)
    numbers = {
        "video files": n_files,
        "videos read": len(videos),
        "tracks": len(tracks),
        "boxes": sum(len(track.boxes) for track in tracks),
        "actions": sum(len(video.actions) for video in videos),
        "sounds": sum(len(video.sounds) for video in videos),
        "questions": len(questions),
        "with a counting tag": counting,
    }
    return ", ".join(f"{number:,} {name}" for name, number in numbers.items())
