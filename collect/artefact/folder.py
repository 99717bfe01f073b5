"""Files that every artefact folder shares: `config.json`, atomic writes, typed tables and hashes.

An artefact folder is the output of one stage (activations, an SAE, a catalogue, effects). Its `config.json` records the
stage, the arguments, the hashes of the inputs, the versions of the libraries and the git commit, and is what a rerun
compares itself with. Whether a stage is finished is decided in `collect.artefact.stage`.

No function here imports torch, and pandas and pyarrow only where a table is read or written.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import stat
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

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
VERSIONED_DISTRIBUTIONS = ("video-sae", "torch", "transformers", "zarr", "numpy")


def write_config(
    folder: Path, stage: str, config: object, inputs: Mapping[str, str], paths: Mapping[str, Path] | None = None
) -> None:
    """Write `folder/config.json` atomically, making the folder if there is none.

    Args:
        folder: the artefact folder.
        stage: name of the stage that owns the folder, such as `collect`.
        config: the stage's arguments: a dataclass instance, or a mapping of names to values. Paths become strings,
            tuples become lists, enums their values.
        inputs: hash (or fingerprint) of each input, by name.
        paths: where inputs lie, by the argument that names them. They are kept absolute, so that they are found from
            any folder; nothing compares them.
    """
    content = {
        "stage": stage,
        "arguments": _arguments(config),
        "inputs": dict(inputs),
        **({"paths": {name: str(path.absolute()) for name, path in paths.items()}} if paths else {}),
        "versions": installed_versions(),
        "commit": source_commit(),
    }
    write_json(folder / CONFIG_NAME, content)


def read_config(folder: Path, stage: str) -> dict[str, Any]:
    """Read `folder/config.json` of the stage named `stage`.

    Returns:
        The keys `stage`, `arguments`, `inputs`, `versions` and `commit`.

    Raises:
        UserError: there is no such file, it is not the JSON that `write_config` writes, it was changed since, or
            another stage wrote it.
    """
    path, shown = folder / CONFIG_NAME, printable(folder / CONFIG_NAME, 4096)
    remake = f"delete {printable(folder, 4096)} and run again what made it"
    if not path.exists():
        raise UserError(f"{shown} does not exist: run `video-sae {stage}` first, or name another folder.")
    content = read_object(path, remake)
    if not all(isinstance(content.get(name), dict) for name in ("arguments", "inputs")):
        raise UserError(
            f"{shown} lacks `arguments` or `inputs`, so it is not a config.json of this program: "
            f"name another folder, or {remake}."
        )
    if content.get("stage") != stage:
        belongs = printable(content.get("stage"), 40)
        raise UserError(f"{shown} belongs to the stage {belongs!r} where {stage!r} is needed: name another folder.")
    if not isinstance(content.get("versions", {}), dict) or not isinstance(content.get("commit"), str | None):
        raise UserError(f"{shown} has `versions` or a `commit` that this program does not write: {remake}.")
    return content


def check_resume(
    folder: Path,
    stage: str,
    config: object,
    inputs: Mapping[str, str],
    ignore: Collection[str] = (),
    recorded: Collection[str] = (),
) -> bool:
    """Decide whether a stage may go on in `folder`.

    Args:
        folder: the artefact folder.
        stage: name of the stage.
        config: the arguments of this run, as for `write_config`.
        inputs: the input hashes of this run, as for `write_config`.
        ignore: names of arguments that may differ because they do not change the result, such as `device`.
        recorded: names of inputs that may differ likewise: they are kept for other stages to compare with.

    Returns:
        False where the folder has no `config.json` yet, True where it was begun with the same arguments and inputs.

    Raises:
        UserError: the folder was begun with other arguments or inputs; the message says which and what to do.
    """
    if not (folder / CONFIG_NAME).exists():
        return False
    before = read_config(folder, stage)
    # Compared as JSON gives them back, so that 1.0 and 1, or a tuple and a list, are the same.
    now = json.loads(json.dumps({"arguments": _arguments(config), "inputs": dict(inputs)}))
    changes = _changes(before["arguments"], now["arguments"], ignore)
    changes += [f"input {change}" for change in _changes(before["inputs"], now["inputs"], recorded)]
    if changes:
        raise UserError(
            f"{folder} was begun with other settings, {_enumerate(changes)}: "
            "give the earlier ones to go on there, choose another --out or --name, or delete the folder."
        )
    return True


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, also after a crash, sees the old content or the new one, never a part.

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

    The umask itself cannot be read without changing it for every thread, so a file is made to see.
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
    """Make the names in a folder durable, as far as its file system can: some do not open or synchronise folders."""
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
    """Remove what `write_atomic` had begun in a folder when its process was killed; only while nobody writes there.

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
        schema: what it was written with; its columns and rules are checked.

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
    """Read a JSON object. A checksum in it is verified and left out; one without is taken as it is.

    Args:
        path: the file.
        remedy: as for `collect.artefact.json_file.read_json`.

    Raises:
        UserError: it cannot be read, is no object, or was changed after it was written.
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
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{path} is not a file: check the path, or run the stage that writes it again.") from None


def installed_versions() -> dict[str, str | None]:
    """Return the version of Python and of the libraries that can change a result; None where not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in VERSIONED_DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@functools.cache
def source_commit() -> str | None:
    """Return the git commit of the source tree, with `-dirty` appended where it has changes; None outside a clone."""
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # an installed copy may lie inside somebody else's repository
        return None
    return _git(root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def _arguments(config: object) -> dict[str, Any]:
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: _jsonable(getattr(config, field.name)) for field in dataclasses.fields(config)}
    assert isinstance(config, Mapping), f"a config is a dataclass instance or a mapping, not {type(config).__name__}"
    return {str(name): _jsonable(value) for name, value in cast("Mapping[object, object]", config).items()}


def _jsonable(value: object) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return _arguments(value)
    assert value is None or isinstance(value, (bool, int, float, str)), (
        f"{value!r} of type {type(value).__name__} cannot stand in {CONFIG_NAME}"
    )
    return value


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str]) -> list[str]:
    absent = object()

    def show(value: object) -> str:
        return "absent" if value is absent else json.dumps(value)

    changes: list[str] = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name, absent), now.get(name, absent)
        if name not in ignore and old != new:
            changes.append(f"{name} = {show(old)} (now {show(new)})")
    return changes


def _enumerate(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
