"""Files of an artefact folder: atomic writes, typed tables, JSON objects and hashes.

An artefact folder is the output of one stage (activations, an SAE, a catalogue, effects). What it was begun with is in
`collect.artefact.config_json`, and whether the stage is finished is decided in `collect.artefact.stage`.

No function here imports torch, and pandas and pyarrow only where a table is read or written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from collect.artefact.inside import open_regular
from collect.artefact.json_file import read_bytes, read_json
from collect.artefact.seal import CHECKSUM, object_condition, seal_object
from collect.artefact.table import DamagedTableError, from_parquet, to_parquet
from collect.errors import UserError
from collect.printable import printable

if TYPE_CHECKING:
    import pandas
    import pyarrow

CONFIG_NAME = "config.json"
TEMPORARY_SUFFIX = ".tmp"
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, even after a crash, sees either the old content or the new, never a part.

    Args:
        path: the file; its folder is made if there is none.
        data: the content; text is written as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def give_usual_mode(*paths: Path) -> None:
    """Give files the mode that a new file has under the user's umask; some libraries write theirs for the owner only.

    The umask cannot be read without changing it for every thread, so a new file is made to find out.
    """
    for folder in {path.parent for path in paths}:
        probe = folder / f".mode.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
        try:
            probe.touch(exist_ok=False)
            mode = stat.S_IMODE(probe.stat().st_mode)
        finally:
            probe.unlink(missing_ok=True)
        for path in paths:
            if path.parent == folder:
                path.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, if its file system can: some cannot open or synchronise folders."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def remove_orphans(folder: Path, *, deep: bool = False) -> None:
    """Remove the unfinished files of a `write_atomic` whose process was killed; only while nobody writes there.

    Args:
        folder: the artefact folder.
        deep: also in the folders within it.
    """
    for path in (folder.rglob if deep else folder.glob)(f".*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def write_table(path: Path, frame: pandas.DataFrame, schema: pyarrow.Schema) -> None:
    """Write a frame as parquet with exactly the columns and types of the schema and a checksum, atomically.

    The same frame gives the same bytes. A missing value (NaN) is stored as null.

    Args:
        path: the parquet file.
        frame: one row per fact; its columns are those of the schema, in any order, and its index is left out.
        schema: names and types of the columns, and the rules of `collect.artefact.table.column`.
    """
    write_atomic(path, to_parquet(frame, schema, path.name))


def read_table(path: Path, schema: pyarrow.Schema | None = None) -> pandas.DataFrame:
    """Read a parquet table that `write_table` wrote.

    Args:
        path: the parquet file.
        schema: the schema it was written with; its columns and rules are checked.

    Raises:
        UserError: the file does not exist, was changed after it was written, or is another table.
    """
    again = f"run {_writer_of(path.parent)} again"
    data = read_bytes(path, again)
    try:
        return from_parquet(data, schema)
    except DamagedTableError as error:
        gone = "it and the summary.json beside it" if path.with_name("summary.json").exists() else "it"
        raise UserError(
            f"{printable(path, 4096)} cannot be read as parquet of this program ({error}): delete {gone} and {again}."
        ) from None


def _writer_of(folder: Path) -> str:
    """The command that writes an artefact folder, as far as its config.json says."""
    for owner in (folder, folder.parent):
        try:
            stage: object = read_object(owner / CONFIG_NAME, "").get("stage")
        except UserError:
            continue
        if isinstance(stage, str):
            return f"`video-sae {printable(stage, 40)}`"
    return f"the stage that writes {printable(folder, 4096)}"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum (`collect.artefact.seal`), atomically."""
    write_atomic(path, json.dumps(seal_object(content), indent=2) + "\n")


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object. A checksum in it is verified and left out; an object without one is taken as it is.

    Args:
        path: the file.
        remedy: as for `collect.artefact.json_file.read_json`.

    Raises:
        UserError: it cannot be read, is not an object, or was changed after it was written.
    """
    content: object = read_json(path, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{printable(path, 4096)} is not a JSON object: {remedy}.")
    content = cast("dict[str, Any]", content)
    if object_condition(content) == "changed":
        raise UserError(
            f"{printable(path, 4096)} does not match its `{CHECKSUM}`, so it was changed after it was written: "
            f"{remedy}, or remove that field if the change was meant."
        )
    return {name: value for name, value in content.items() if name != CHECKSUM}


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits.

    Raises:
        UserError: there is no such file.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno not in (0, errno.ENOENT, errno.ENOTDIR):  # 0: a folder, a pipe or a device
            raise
        raise UserError(f"{path} is not a file: check the path, or run the stage that writes it again.") from None
