"""The video files of a folder, and their ids.

A video's id is its path below the folder with `/` between the parts and without the suffix: `video_1`, or
`class a/clip 7` where videos are sorted into folders. Every suffix that FFmpeg reads as video counts; files that are
skipped are named. Names that start with a dot are hidden and do not count.
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from collect.errors import UserError
from collect.printable import printable

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".f4v"),  # MP4 and its relatives
        *(".mkv", ".webm", ".avi", ".divx", ".flv", ".wmv", ".asf", ".ogv", ".ogm", ".rm", ".rmvb", ".nut", ".mxf"),
        *(".ts", ".mts", ".m2ts", ".m2t", ".mpg", ".mpeg", ".mpe", ".vob", ".dv", ".gif", ".ivf", ".y4m"),
        *(".m1v", ".m2v", ".mpv", ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg"),  # bare streams
    }
)
_ANNOTATION_SUFFIXES = frozenset({".json", ".parquet", ".csv", ".txt", ".md"})
"""Suffixes of files that may lie next to videos and be about them."""
_NAMED = 5
"""Most files that a message names; of more, it gives the number."""


@dataclass(frozen=True, kw_only=True)
class VideoFiles:
    """What a folder holds."""

    paths: Mapping[str, Path]
    """Videos by id, sorted."""
    others: tuple[Path, ...] = ()
    """Files whose names are neither those of videos nor of files about videos."""
    not_utf8: tuple[Path, ...] = ()
    """Videos whose names cannot be stored in a table."""
    no_files: tuple[Path, ...] = ()
    """Names of videos that are not files: links to nothing, pipes."""
    beside: tuple[Path, ...] = ()
    """Files that may be about videos: annotations, tables, lists, notes."""

    @property
    def passed_over(self) -> tuple[Path, ...]:
        """Files that nothing reads, wherever they lie."""
        return (*self.others, *self.not_utf8, *self.no_files)

    def of(self, video_id: str) -> Path | None:
        """The file of an annotated video: under its id, or in any folder below if it is the only file with that name.

        So the videos `clip` and `a/clip` may have one file, which belongs to the second.

        Raises:
            UserError: several folders have a file of this name.
        """
        if video_id in self.paths:
            return self.paths[video_id]
        same = self._by_last_part.get(video_id, [])
        if len(same) > 1:
            video = printable(repr(video_id))
            raise UserError(f"{listed(same)} may each be the annotated video {video}: remove or rename all but one.")
        return same[0] if same else None

    @cached_property
    def _by_last_part(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for name, path in self.paths.items():
            found.setdefault(name.rpartition("/")[2], []).append(path)
        return found

    def not_among(self, paths: Collection[Path]) -> list[Path]:
        """The videos whose files are not among these."""
        return [path for path in self.paths.values() if path not in paths]


def find_videos(folder: Path) -> VideoFiles:
    """Find all video files of a data folder, in `folder/videos` if there is one, and in the folders below.

    Raises:
        UserError: two files have the same id, or a folder cannot be read.
    """
    place = folder / "videos" if (folder / "videos").is_dir() else folder
    found: dict[str, Path] = {}
    others: list[Path] = []
    beside: list[Path] = []
    not_utf8: list[Path] = []
    no_files: list[Path] = []
    for path in _names(place):
        suffix = path.suffix.lower()
        if not path.is_file():
            no_files += [path] if suffix in VIDEO_SUFFIXES else []
            continue
        if suffix not in VIDEO_SUFFIXES:
            (beside if suffix in _ANNOTATION_SUFFIXES else others).append(path)
            continue
        video_id = path.relative_to(place).with_suffix("").as_posix()
        if not _is_writable(video_id):
            not_utf8.append(path)
            continue
        if video_id in found:
            first, second = printable(found[video_id], 1000), printable(path, 1000)
            raise UserError(f"{first} and {second} have one name: rename or remove one of them.")
        found[video_id] = path
    return VideoFiles(
        paths=dict(sorted(found.items())),
        others=tuple(others),
        not_utf8=tuple(not_utf8),
        no_files=tuple(no_files),
        beside=tuple(beside),
    )


def log_passed_over(files: VideoFiles) -> None:
    """Name the files that are skipped, and say why."""
    if files.others:
        logger.warning("Passed over, because their names are not those of videos: %s", listed(files.others))
    if files.not_utf8:
        logger.warning(
            "Passed over, because their names are not UTF-8, which no table can hold; rename them: %s",
            listed(files.not_utf8),
        )
    if files.no_files:
        logger.warning(
            "Passed over, because there is no file at these names (links to nothing, or pipes): %s",
            listed(files.no_files),
        )


def no_videos(folder: Path, files: VideoFiles) -> UserError:
    """The error of a folder without videos; it names what was there instead."""
    remedy = f"put them into {printable(folder / 'videos', 1000)}, as .mp4 files for instance"
    if not files.passed_over:
        return UserError(f"{printable(folder, 1000)} holds no videos: {remedy}.")
    others = listed(files.passed_over)
    return UserError(f"{printable(folder, 1000)} holds no videos, only {others}: {remedy}, under names in UTF-8.")


def listed(paths: Collection[Path]) -> str:
    """Paths in words, shortened when there are many."""
    names = [printable(path) for path in sorted(paths)]
    some = ", ".join(names[:_NAMED])
    return some if len(names) <= _NAMED else f"{some} and {len(names) - _NAMED} more"


def _is_writable(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _names(place: Path) -> Iterator[Path]:
    """Everything below a folder except folders, in a fixed order; links to folders are followed, each is read once."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        raise UserError(f"{printable(error.filename, 1000)} cannot be read ({error.strerror}): change its permissions.")

    for parent, folders, names in os.walk(place, followlinks=True, onerror=refuse):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(parent, name)
