"""Paths that come out of files: only within their folder, and only regular files are opened.

A manifest, a log, an archive's list or a table may have been written by anybody. Any name in one is resolved here
before it is read, written or cut, so that it cannot lead out of its folder, by itself or through a link. This is not
about paths that the user types: they may lie anywhere.
"""

import os
import stat
from pathlib import Path, PurePosixPath

from collect.errors import UserError
from collect.printable import printable


def inside(folder: Path, name: object, origin: Path | None = None) -> Path:
    """Resolve a name that a file gave.

    Args:
        folder: where it may lead.
        name: relative path within the folder.
        origin: the file that gave it, for the message; None if it did not come from a file.

    Returns:
        `folder / name`, which lies within the folder once all links are followed.

    Raises:
        UserError: the name is not text, is absolute, has `..` or a null byte in it, or leads out by a link.
    """
    if isinstance(name, str) and is_relative(name) and _stays(folder, folder / name):
        return folder / name
    said = f"{printable(origin, 4096)} names" if origin is not None else "There is"
    raise UserError(
        f"{said} the path {printable(name)!r}, which is not one within {printable(folder, 4096)}: do not trust it; "
        "restore the file from where it was made, and replace links by what they lead to."
    )


def is_relative(name: str) -> bool:
    """Whether a name leads downwards from wherever it is put, as far as the name alone shows."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def open_regular(path: Path) -> int:
    """Open a regular file for reading, and nothing that could block or be endless.

    Returns:
        The descriptor.

    Raises:
        OSError: it cannot be opened, or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a null byte in the name
        raise OSError(str(error)) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is not a file")


def _stays(folder: Path, path: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle
        return False
