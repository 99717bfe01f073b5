"""`config.json` of an artefact folder: the arguments, versions and inputs that it was begun with."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath
from typing import Any, cast

from collect.artefact.folder import CONFIG_NAME, read_object, write_json
from collect.errors import UserError
from collect.printable import printable
from collect.process.provenance import installed_versions, source_commit


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
            any folder; they are never compared.
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
    is_known = all(isinstance(content.get(name, {}), dict) for name in ("versions", "paths"))
    if not is_known or not isinstance(content.get("commit"), str | None):
        raise UserError(f"{shown} has `versions`, `paths` or a `commit` that this program does not write: {remake}.")
    return content


def check_resume(
    folder: Path,
    stage: str,
    config: object,
    inputs: Mapping[str, str],
    ignore: Collection[str] = (),
    recorded: Collection[str] = (),
    places: Mapping[str, object] | None = None,
    formerly: Mapping[str, object] | None = None,
) -> bool:
    """Decide whether a stage may continue in `folder`.

    Args:
        folder: the artefact folder.
        stage: name of the stage.
        config: the arguments of this run, as for `write_config`.
        inputs: the input hashes of this run, as for `write_config`.
        ignore: names of arguments that may differ because they do not change the result, such as `device`.
        recorded: names of inputs that may differ too: they are kept for other stages to compare with.
        places: where inputs lie now, by their names, for the message.
        formerly: what earlier versions recorded for the present value of an argument, by its name.

    Returns:
        False if the folder has no `config.json` yet, True if it was begun with the same arguments and inputs.

    Raises:
        UserError: the folder was begun with other arguments or inputs; the message says which and what to do.
    """
    if not (folder / CONFIG_NAME).exists():
        return False
    before = read_config(folder, stage)
    # Compared as JSON returns them, so that 1.0 and 1, or a tuple and a list, are the same.
    now = json.loads(json.dumps({"arguments": _arguments(config), "inputs": dict(inputs)}))
    was, is_now = before["arguments"], now["arguments"]
    same = {name for name, value in (formerly or {}).items() if name in was and was[name] == value}
    changes = _changes(was, is_now, {*ignore, *same}, {})
    changes += [f"input {change}" for change in _changes(before["inputs"], now["inputs"], recorded, places or {})]
    if changes:
        elsewhere = "".join(f"choose another --{name}, " for name in ("out", "name") if name in is_now)
        raise UserError(
            f"{folder} was begun with other settings, {_enumerate(changes)}: "
            f"give the earlier ones to go on there, {elsewhere}or delete the folder."
        )
    return True


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


def _changes(
    before: Mapping[str, Any], now: Mapping[str, Any], ignore: Collection[str], places: Mapping[str, object]
) -> list[str]:
    absent = object()

    def show(value: object) -> str:
        return "absent" if value is absent else printable(json.dumps(value), 400)

    changes: list[str] = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name, absent), now.get(name, absent)
        if name not in ignore and old != new:
            named = f"{name} ({printable(places[name], 1000)})" if name in places else name
            changes.append(f"{named} = {show(old)} (now {show(new)})")
    return changes


def _enumerate(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
