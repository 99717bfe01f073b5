"""The part of a file that has arrived, and the content it belongs to, so that nothing else is ever added to it.

TARGET.partial         what has arrived so far
TARGET.partial.json    which file that is part of: address, size, and the server's mark of its version
"""

import errno
import json
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import write_atomic
from collect.artefact.json_file import read_json
from collect.download.unpack import DISK_FULL, SPARE_BYTES
from collect.errors import UserError
from collect.printable import printable

MOST_NOTES_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Version:
    """Which content a partial file is part of."""

    url: str
    size: int | None
    """Bytes of the whole file; None if the server does not say."""
    mark: str | None
    """Strong ETag, or else the time of the last change."""


class Partial:
    """The part of one file that has arrived.

    Args:
        target: the file, which appears under this name once it is whole.

    Every method that writes raises a `UserError` if the disk is full or not writable.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f"{target.name}.partial")
        self._notes = target.with_name(f"{target.name}.partial.json")

    @property
    def n_bytes(self) -> int:
        """How much has arrived."""
        return self._path.stat().st_size if self._path.is_file() else 0

    def version(self, url: str) -> Version | None:
        """What it is part of; None if nothing has arrived, or it came from another address."""
        try:
            content: object = read_json(self._notes, "it is made anew", MOST_NOTES_BYTES)
        except UserError:
            return None
        if not isinstance(content, dict) or not self._path.is_file():
            return None
        notes = cast("dict[str, Any]", content)
        size, mark = notes.get("size"), notes.get("mark")
        is_mark = mark is None or (isinstance(mark, str) and mark.isascii() and mark.isprintable())
        if notes.get("url") != url or type(size) not in (int, type(None)) or not is_mark:
            return None
        return Version(url=url, size=size, mark=mark)

    def begin(self, version: Version) -> None:
        """Start over."""
        with self._disk():
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._notes.unlink(missing_ok=True)  # before the content: notes must never describe other content
            self._path.write_bytes(b"")
            write_atomic(self._notes, json.dumps(asdict(version)) + "\n")

    @contextmanager
    def appending(self) -> Generator[Callable[[bytes], None]]:
        """Open it, and give the function that adds the next block.

        What is added stays even if the program is killed. The disk is never filled completely.
        """

        def add(block: bytes) -> None:
            with self._disk():
                if shutil.disk_usage(self._path.parent).free < SPARE_BYTES:
                    raise OSError(errno.ENOSPC, "No space left on device")
                file.write(block)
                file.flush()

        with self._disk():
            file = self._path.open("ab")
        try:
            yield add
        finally:
            with self._disk():
                file.close()

    def finish(self) -> None:
        """Give the file its name."""
        with self._disk():
            self._path.replace(self._target)
            self._notes.unlink()

    def forget(self) -> None:
        """Remove what has arrived."""
        with self._disk():
            self._notes.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _disk(self) -> Generator[None]:
        """Tell errors of the disk from those of the connection, which are tried again."""
        try:
            yield
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise UserError(
                    f"{printable(self._path, 4096)} cannot be written ({error.strerror or error}): choose an --out "
                    "where you may write."
                ) from None
            raise UserError(
                f"The disk is full while {printable(self._target, 4096)} is being fetched: make room there and run the "
                "same command again; it goes on where it was."
            ) from None
