"""Rules for arguments: numbers in range, and names that every file system accepts and every terminal can show."""

from pathlib import Path

from collect.errors import UserError
from collect.printable import printable

MOST_BYTES = 200
"""Most bytes of a name in UTF-8: file systems take 255, and suffixes of temporary files need some of them."""
LARGEST_SEED = 2**63 - 1
"""What torch's generators take, with room for the numbers that are added to it."""
_FORBIDDEN = frozenset('/\\:*?"<>|')
"""Separators, and characters that the file systems of other systems do not accept."""


def require_name(option: str, name: str) -> None:
    """Check the name of a folder to be made within a run.

    Args:
        option: the option that takes it, for the message: `--name`.
        name: what was given.

    Raises:
        UserError: it is empty or too long, begins with a dot, begins or ends with a blank, or has a character that is
            a separator, is not seen as itself, or that some file system does not take.
    """
    if not name or name.startswith(".") or name != name.strip() or set(name) & _FORBIDDEN or not _is_seen(name):
        raise UserError(
            f"{option} '{printable(name)}' cannot name a folder: use letters, digits, '-', '_' and '.', and no dot in "
            "front."
        )
    _require_short(option, name)


def require_wanted(option: str, name: str | None) -> None:
    """Check the name or the path of a folder that is only read, whoever named it; None means that none is given.

    Raises:
        UserError: it names nothing, or no folder at all.
    """
    if name is not None and (name in ("", ".", "..") or "\0" in name):
        raise UserError(f"{option} '{printable(name)}' names no folder: give its name in the run, or its path.")


def require_path(option: str, path: Path) -> None:
    """Check a path where something is to be made; the names of its parents are not our concern.

    Raises:
        UserError: its last name is too long or has a character that is not seen as itself, or a parent has a control
            character.
    """
    if not _is_seen(path.name) or any(not character.isprintable() for character in _without_bytes(str(path.parent))):
        raise UserError(
            f"{option} '{printable(path)}' has a character that is not seen as itself, such as a line break: name "
            "another folder."
        )
    _require_short(option, path.name)


def require_at_least(option: str, value: int, least: int) -> None:
    """Check that a number is not too small.

    Raises:
        UserError: it is below it.
    """
    if value < least:
        raise UserError(f"{option} {value} is too small: give at least {least}.")


def require_seed(seed: int) -> None:
    """Check a seed, of which every stage has one.

    Raises:
        UserError: no generator takes it.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"--seed {seed} is out of range: give a whole number from 0 to {LARGEST_SEED}.")


def _is_seen(name: str) -> bool:
    return printable(name, len(name)) == name


def _without_bytes(text: str) -> str:
    """Text without bytes that are not valid UTF-8; older file systems have some in their names."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "ignore")


def _require_short(option: str, name: str) -> None:
    n_bytes = len(name.encode("utf-8", "surrogatepass"))
    if n_bytes > MOST_BYTES:
        raise UserError(
            f"{option} '{printable(name, 40)}' has {n_bytes:,} bytes, more than the {MOST_BYTES} that a name may have: "
            "choose a shorter one."
        )
