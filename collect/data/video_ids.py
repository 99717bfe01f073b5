"""Video ids as people write them: in lists, as keys, with or without the suffix of the file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from collect.artefact.json_file import read_bytes
from collect.errors import UserError
from collect.printable import printable
from collect.video.folder import VIDEO_SUFFIXES

_HEADINGS = frozenset({"video_id", "video_ids", "video", "video_name", "videos", "id", "ids", "name"})
_REMEDY = "give a text file with one video id a line"


def plain_id(name: str) -> str:
    """Return the id without the suffix of a video file, in any case of letters."""
    stem, dot, suffix = name.strip().rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in VIDEO_SUFFIXES else name.strip()


def read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of video ids.

    One id per line, of which only the first column counts; or all on one line, separated by commas, like the
    challenge's lists. Headings, empty lines and lines that begin with # are ignored.

    Raises:
        UserError: the file is not there or names no video.
    """
    shown = printable(path, 4096)
    try:
        text = read_bytes(path, _REMEDY).decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown} cannot be read as a list of video ids ({error.reason}): {_REMEDY}.") from None
    if "\0" in text:
        raise UserError(f"{shown} cannot be read as a list of video ids (it is no text): {_REMEDY}.")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = tuple(dict.fromkeys(plain_id(name) for name in _names(lines)))
    if not found:
        raise UserError(f"{shown} names no video: write one video id a line.")
    return found


def _names(lines: Sequence[str]) -> list[str]:
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)]
    except csv.Error:  # quotes that do not end, or a cell without end: then the line is the id
        rows = [[line.strip()] for line in lines]
    cells = rows[0] if len(rows) == 1 else [row[0] for row in rows if row]
    headed = cells[0].lower() in _HEADINGS if cells else False
    return [name for name in cells[headed:] if name]
