"""The commit log of one rank: which rows are valid; one JSON line per commit, each on disk before the next.

The first line is the header. A crash can tear the last line, which then counts as not written. Every line ends with
a checksum of itself and of all lines before it, so no bit can change, and no line but the last can be lost, doubled or
moved, without being noticed. Logs of the format's first version have no checksums; they are read and continued without
them.

What the lines mean is in `collect.store.rank_log`.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import google_crc32c

from collect.artefact.folder import sync_folder
from collect.artefact.json_file import parse_json, read_bytes
from collect.printable import printable
from collect.store.shards import DAMAGE_REMEDY, damaged

_TAIL = re.compile(rb',"crc32c":"([0-9a-f]{8})"\}\Z')
_TAIL_BYTES = 21


@dataclass(frozen=True, kw_only=True)
class LogLines:
    """The whole lines of a log."""

    path: Path
    lines: tuple[dict[str, Any], ...]
    """The header and the commits, without their checksums."""
    checksum: int | None
    """crc32c of all of them; None if the lines have no checksums."""
    ends: tuple[int, ...]
    """Byte after each line's newline."""


class CommitLog:
    """Appends lines to a log; a torn last line is cut off when the log is opened.

    Args:
        path: the JSONL file; made if there is none.

    Raises:
        UserError: the log is damaged.
    """

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        known = None if new else read_log(path)
        self._checksum = 0 if known is None or not known.lines else known.checksum
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        whole = known.ends[-1] if known is not None and known.ends else 0
        if whole < os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
        if new:
            sync_folder(path.parent)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line; when this returns, the line survives a crash."""
        data, checksum = encoded(line, self._checksum)
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of a commit were written")
        os.fsync(self._descriptor)
        self._checksum = checksum

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def encoded(line: Mapping[str, Any], before: int | None) -> tuple[bytes, int | None]:
    """A line of a log as it is written.

    Args:
        line: the header or a commit.
        before: checksum of the lines before it, 0 for the header; None in a log without checksums.

    Returns:
        Its bytes with the newline, and the checksum of all lines up to it.
    """
    text = json.dumps(line, separators=(",", ":"), allow_nan=False).encode()
    if before is None:
        return text + b"\n", None
    body = text[:-1]
    checksum = google_crc32c.extend(before, body)
    return body + b',"crc32c":"%08x"}\n' % checksum, checksum


def read_log(path: Path) -> LogLines:
    """Read the whole lines of a log and verify their checksums; a torn last line is left out.

    Raises:
        UserError: the file cannot be read, or a line other than a torn last one is not a JSON object, fails its
            checksum or lacks the one that the lines before it have.
    """
    content = read_bytes(path, DAMAGE_REMEDY)
    lines: list[dict[str, Any]] = []
    ends: list[int] = []
    checksum: int | None = 0
    start = 0
    while (stop := content.find(b"\n", start)) >= 0:
        number, text = len(lines) + 1, content[start:stop]
        tail = _TAIL.search(text, max(0, len(text) - _TAIL_BYTES))
        if number == 1 and tail is None:
            checksum = None
        if (tail is None) != (checksum is None):
            raise damaged(path, f"line {number} has no checksum where another has")
        if tail is not None and checksum is not None:
            checksum = google_crc32c.extend(checksum, text[: tail.start()])
            if checksum != int(tail[1], 16):
                raise damaged(path, f"line {number} fails its checksum, or a line before it is missing")
        value = parse_json(text, f"line {number} of {printable(path, 4096)}", DAMAGE_REMEDY)
        if not isinstance(value, dict):
            raise damaged(path, f"line {number} is not a JSON object")
        value = cast("dict[str, Any]", value)
        value.pop("crc32c", None)
        lines.append(value)
        start = stop + 1
        ends.append(start)
    return LogLines(path=path, lines=tuple(lines), checksum=checksum if lines else None, ends=tuple(ends))
