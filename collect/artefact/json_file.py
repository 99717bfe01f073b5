"""Reading JSON, whoever wrote it: one function, and one error for everything that can be wrong with a file.

Besides wrong syntax, this covers nesting too deep to parse, numbers with thousands of digits, bytes that are not text,
folders and devices in place of files, and files larger than any JSON of this program. A byte-order mark is skipped.
"""

import json
import stat
from pathlib import Path
from typing import Any

from collect.errors import UserError
from collect.printable import printable

LARGEST = 4 * 1024**3
"""Bytes; the annotations of Perception Test's largest split take 0.1 GB."""


def read_json(path: Path, remedy: str, most_bytes: int = LARGEST) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        remedy: what the user can do if it is damaged, as the end of a sentence: "fetch it again".
        most_bytes: a larger file is refused.

    Returns:
        What it holds.

    Raises:
        UserError: the file is not there, cannot be read, is too large or is not JSON; the message names it.
    """
    return parse_json(read_bytes(path, remedy, most_bytes), path, remedy)


def read_bytes(path: Path, remedy: str, most_bytes: int = LARGEST) -> bytes:
    """Read a regular file of bounded size.

    Raises:
        UserError: it is not there, is not a regular file, cannot be read or is too large.
    """
    shown = printable(path, 4096)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{shown} is not a file: {remedy}.")
        if status.st_size > most_bytes:
            raise UserError(f"{shown} has {status.st_size:,} bytes, more than the {most_bytes:,} allowed: {remedy}.")
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{shown} does not exist: {remedy}.") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name, or the refusals above
        if isinstance(error, UserError):
            raise
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(f"{shown} cannot be read ({reason}): {remedy}.") from None


def parse_json(data: bytes | str, place: object, remedy: str) -> Any:
    """Parse JSON.

    Args:
        data: the text, as UTF-8 if it is bytes.
        place: where it is from, for the message.
        remedy: as for `read_json`.

    Raises:
        UserError: it is not JSON, or is nested too deep.
    """
    try:
        text = (data.decode() if isinstance(data, bytes) else data).removeprefix("\ufeff")
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not text, and endless numbers
        reason = "it is nested too deep" if isinstance(error, RecursionError) else printable(error, 120)
        raise UserError(f"{printable(place, 4096)} is not valid JSON ({reason}): {remedy}.") from None
