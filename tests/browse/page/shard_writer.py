"""A second writer of the shard format, after its description alone, for tests of the page."""

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its type as in the format, and its values."""

    type: str
    values: Any
    """Numbers for f4, i4, u1 and q2; strings or None for str and dict; anything that JSON holds for json."""


def write_shard(folder: Path, name: str, columns: Mapping[str, Column], meta: Any = None) -> Path:
    """Write `shards/NAME.js` below a folder.

    Args:
        folder: of the served or exported page.
        name: of the shard, with slashes; ids in it are already escaped by `file_id`.
        columns: name -> column, all of the same length.
        meta: what the header's `meta` holds.

    Returns:
        The file.
    """
    entries: list[dict[str, Any]] = []
    parts: list[bytes] = []
    offset = 0
    n_rows = 0
    for column_name, column in columns.items():
        entry, data = _encoded(column)
        n_rows = len(column.values)
        entries.append({"name": column_name, "type": column.type, "offset": offset, "n": len(data), **entry})
        padded = data + b"\0" * (-len(data) % 8)
        parts.append(padded)
        offset += len(padded)
    header = json.dumps({"n_rows": n_rows, "columns": entries, "meta": meta or {}}).encode()
    header += b" " * (-(4 + len(header)) % 8)
    packed = gzip.compress(len(header).to_bytes(4, "little") + header + b"".join(parts), 6, mtime=0)
    path = folder / "shards" / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'videoSae.shard("{name}","{base64.b64encode(packed).decode()}");\n', encoding="ascii")
    return path


def rows(values: Sequence[Any]) -> dict[str, Column]:
    """The columns of a shard whose rows are objects."""
    return {"json": Column(type="json", values=values)}


def file_id(text: str) -> str:
    """An id as part of a shard's name: every byte outside [A-Za-z0-9._-] becomes ~XX."""
    return re.sub(rb"[^A-Za-z0-9._-]", lambda byte: b"~%02X" % ord(byte[0]), text.encode()).decode()


def _encoded(column: Column) -> tuple[dict[str, Any], bytes]:
    values = column.values
    if column.type == "f4":
        return {}, np.asarray(values, "<f4").tobytes()
    if column.type == "i4":
        return {}, np.asarray(values, "<i4").tobytes()
    if column.type == "u1":
        return {}, np.asarray(values, "u1").tobytes()
    if column.type == "q2":
        numbers = np.asarray(values, float)
        low, high = float(np.nanmin(numbers)), float(np.nanmax(numbers))
        steps = np.round((numbers - low) / ((high - low) or 1) * 65534)
        return {"low": low, "high": high}, np.where(np.isnan(numbers), 65535, steps).astype("<u2").tobytes()
    if column.type == "dict":
        distinct = sorted({value for value in values if value is not None})
        index = {value: i for i, value in enumerate(distinct)}
        return {"values": distinct}, np.asarray(
            [-1 if value is None else index[value] for value in values], "<i4"
        ).tobytes()
    return {}, json.dumps(list(values), ensure_ascii=False).encode()
