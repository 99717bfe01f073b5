"""The commit log of one rank: what of its Zarr store is valid, one JSON line a commit, each on disk before the next.

The first line is the header. A crash can tear the last line, which then counts as never written; anything else that is
not JSON means that the file was damaged.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from collect.artefact import sync_folder
from collect.errors import UserError


class CommitLog:
    """Appends lines to a log; a torn last line is cut off when the log is opened.

    Args:
        path: the JSONL file; made if there is none.
    """

    def __init__(self, path: Path) -> None:
        new = not path.exists()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._descriptor, whole)
            os.fsync(self._descriptor)
        if new:
            sync_folder(path.parent)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line; when this returns, the line survives a crash."""
        data = (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of a commit were written")
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a log; a torn last line is left out.

    Raises:
        UserError: the file cannot be read, or a line other than a torn last one is not a JSON object.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): restore it, or collect again.") from None
    lines: list[dict[str, Any]] = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            value: object = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise UserError(
                f"{path} is damaged in line {number}: restore it, or delete the activations folder and collect again."
            )
        lines.append(cast("dict[str, Any]", value))
    return lines
