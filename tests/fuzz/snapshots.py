"""What a folder holds, in a form in which two folders can be compared: content without versions, times and layout."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

Snapshot = dict[str, str]
"""Path below the folder -> what is there: the hash of a file's content, or what it is if it is no file."""

_PASSING = {"versions", "commit", "checksum"}
"""Keys of JSON that say how something was made, not what it is; a checksum is over these too."""
_WITHOUT_SAYING: dict[str, object] = {"attributes": {}, "storage_transformers": [], "consolidated_metadata": None}
"""Keys of zarr.json that say the same where they are left out."""
_TIMING = ("_s", "_per_s", "wall", "time", "share", "rss", "seconds")
"""Endings of the names in `metrics.jsonl` and `summary.json` whose values are never twice the same."""


def snapshot(folder: Path) -> Snapshot:
    """Look at everything below a folder; a link to a file counts as that file, other links as themselves."""
    found: Snapshot = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            if name.endswith(".lock") or (path.is_dir() and not path.is_symlink()):
                continue
            found[str(path.relative_to(folder))] = _content(path)
    return found


def _content(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return f"link to {path.readlink()}"
    if not stat.S_ISREG(mode):
        return f"link to {path.readlink()}" if path.is_symlink() else f"special file {stat.S_IFMT(mode)}"
    return hashlib.sha256(normal(path)).hexdigest()


def normal(path: Path) -> bytes:
    """The content of a file, of JSON what it says."""
    data = path.read_bytes()
    if path.suffix not in (".json", ".jsonl"):
        return data
    try:
        values = [json.loads(line) for line in data.splitlines()] if path.suffix == ".jsonl" else [json.loads(data)]
        if path.name == "zarr.json" and isinstance(values[0], dict):
            values[0] = {key: item for key, item in values[0].items() if _WITHOUT_SAYING.get(key, values) != item}
        return json.dumps([_lasting(value, is_record=path.parent.parent.name == "sae") for value in values]).encode()
    except (ValueError, RecursionError):
        return data


def _lasting(value: Any, *, is_record: bool) -> Any:
    """A value without what passes."""
    if not isinstance(value, dict):
        return value
    return {
        key: item
        for key, item in value.items()
        if key not in _PASSING and not (is_record and isinstance(item, (int, float)) and key.endswith(_TIMING))
    }
