"""The shard format: a table with typed columns, as a script that any browser loads, served or from a file.

    videoSae.shard("NAME","BASE64");

BASE64 is gzip of: the length of the header as unsigned 32-bit integer, the header as JSON filled up with blanks, then
the columns. The header's end and every column begin at multiples of eight bytes; numbers are little-endian.

| type   | column on disk | missing |
|--------|----------------|---------|
| `f4`   | float32 | NaN |
| `i4`   | int32 | -2147483648 |
| `u1`   | uint8, also for truth values | – |
| `q2`   | uint16 q that stands for low + (high - low) q / 65534 | 65535 |
| `str`  | a JSON array of texts | null |
| `dict` | int32 index into `values` of the header | -1 |
| `json` | a JSON array with any value per row | null |

The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import numpy as np

from browse.names import is_shard_name

Kind = Literal["f4", "i4", "u1", "q2", "str", "dict", "json"]
MISSING_I4 = -(2**31)
MISSING_Q2 = 65535
LEVELS = 65534
"""Steps of a quantised column."""
_DTYPES = {"f4": "<f4", "i4": "<i4", "u1": "u1", "q2": "<u2", "dict": "<i4"}
_SCRIPT = re.compile(rb'videoSae\.shard\("([^"]*)","([A-Za-z0-9+/=]*)"\);\n')


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: what its type is, and its values as they are on disk."""

    kind: Kind
    values: np.ndarray[Any, np.dtype[Any]] | list[Any]
    """An array of the type's own kind, or a list for `str` and `json`."""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the header says besides: `low` and `high`, or `values`."""

    def decoded(self) -> list[Any]:
        """The values with None where one is missing."""
        if self.kind in ("str", "json"):
            return list(self.values)
        if self.kind == "dict":
            return [None if index < 0 else self.extra["values"][index] for index in np.asarray(self.values).tolist()]
        if self.kind in ("f4", "q2"):
            return [None if math.isnan(value) else value for value in self.numbers().tolist()]
        listed = np.asarray(self.values).tolist()
        return [None if value == MISSING_I4 else value for value in listed] if self.kind == "i4" else listed

    def numbers(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values of a numeric column as float64, NaN where one is missing."""
        values = np.asarray(self.values)
        numbers = values.astype(np.float64)
        if self.kind == "q2":
            low, high = float(self.extra["low"]), float(self.extra["high"])
            numbers = low + (high - low) * numbers / LEVELS
            numbers[values == MISSING_Q2] = np.nan
        elif self.kind == "i4":
            numbers[values == MISSING_I4] = np.nan
        return numbers


def floats(values: Sequence[int | float | None] | np.ndarray[Any, np.dtype[Any]]) -> Column:
    """A column of float32."""
    return Column(kind="f4", values=_numbers(values).astype("<f4"))


def quantised(values: Sequence[int | float | None] | np.ndarray[Any, np.dtype[Any]]) -> Column:
    """A column of numbers to two bytes each: off by at most a 131,068th of their range. Infinite ones are missing."""
    numbers = _numbers(values)
    known = np.isfinite(numbers)
    low, high = (float(numbers[known].min()), float(numbers[known].max())) if known.any() else (0.0, 0.0)
    step = (high - low) / LEVELS
    out = np.full(len(numbers), MISSING_Q2, dtype="<u2")
    out[known] = np.rint((numbers[known] - low) / step) if step > 0 else 0
    return Column(kind="q2", values=out, extra={"low": low, "high": high})


def integers(values: Sequence[int | float | None] | np.ndarray[Any, np.dtype[Any]]) -> Column:
    """A column of int32; NaN and None are missing."""
    numbers = _numbers(values)
    known = np.isfinite(numbers)
    assert not known.any() or np.abs(numbers[known]).max() < 2**31, "a number does not fit into int32"
    return Column(kind="i4", values=np.where(known, numbers, MISSING_I4).astype("<i4"))


def flags(values: Sequence[bool] | np.ndarray[Any, np.dtype[Any]]) -> Column:
    """A column of truth values."""
    return Column(kind="u1", values=np.asarray(values, dtype=bool).astype("u1"))


def texts(values: Sequence[object]) -> Column:
    """A column of texts; whatever is none is missing."""
    return Column(kind="str", values=[_text(value) for value in values])


def choices(values: Sequence[object]) -> Column:
    """A column of texts of which many are the same; whatever is none is missing. The values are sorted."""
    shown = [_text(value) for value in values]
    known = sorted({value for value in shown if value is not None})
    place = {value: index for index, value in enumerate(known)}
    codes = np.array([-1 if value is None else place[value] for value in shown], dtype="<i4")
    return Column(kind="dict", values=codes, extra={"values": known})


def objects(values: Sequence[Any]) -> Column:
    """A column with any JSON value per row."""
    return Column(kind="json", values=list(values))


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A table, and what belongs to all of its rows."""

    columns: Mapping[str, Column] = field(default_factory=dict[str, Column])
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return max((len(column.values) for column in self.columns.values()), default=0)


def encode(name: str, shard: Shard) -> bytes:
    """A shard as the content of its file."""
    assert is_shard_name(name), f"{name!r} is no name of a shard"
    assert all(len(column.values) == shard.n_rows for column in shard.columns.values()), f"{name}: uneven columns"
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    offset = 0
    for key, column in shard.columns.items():
        if column.kind in ("str", "json"):
            data = _json(column.values)
        else:
            data = np.asarray(column.values).astype(_DTYPES[column.kind], copy=False).tobytes()
        described.append({"name": key, "type": column.kind, "offset": offset, "n": len(data), **column.extra})
        parts.append(data + b"\0" * (-len(data) % 8))
        offset += len(parts[-1])
    header = _json({"n_rows": shard.n_rows, "columns": described, "meta": shard.meta})
    header += b" " * (-(4 + len(header)) % 8)
    packed = gzip.compress(b"".join([struct.pack("<I", len(header)), header, *parts]), compresslevel=6, mtime=0)
    return b'videoSae.shard("%s","%s");\n' % (name.encode(), base64.b64encode(packed))


def decode(data: bytes) -> tuple[str, Shard]:
    """Name and content of a shard's file.

    Raises:
        ValueError: the bytes are no shard.
    """
    script = _SCRIPT.fullmatch(data)
    if script is None:
        raise ValueError("it is not a shard: it does not call videoSae.shard with a name and base64")
    try:
        content = gzip.decompress(base64.b64decode(script[2], validate=True))
        (length,) = struct.unpack_from("<I", content)
        header = cast("dict[str, Any]", json.loads(content[4 : 4 + length]))
        columns = {
            str(entry["name"]): _column(content[4 + length :], entry)
            for entry in cast("list[dict[str, Any]]", header["columns"])
        }
        shard = Shard(columns=columns, meta=header["meta"])
        if any(len(column.values) != header["n_rows"] for column in columns.values()):
            raise ValueError("its columns differ in length")
    except (OSError, EOFError, struct.error, binascii.Error, KeyError, TypeError) as error:
        raise ValueError(f"it is a damaged shard: {error!r}") from None
    return script[1].decode(), shard


def _column(content: bytes, entry: Mapping[str, Any]) -> Column:
    kind = cast("Kind", entry["type"])
    data = content[entry["offset"] : entry["offset"] + entry["n"]]
    extra = {key: value for key, value in entry.items() if key not in ("name", "type", "offset", "n")}
    values = json.loads(data) if kind in ("str", "json") else np.frombuffer(data, dtype=_DTYPES[kind])
    return Column(kind=kind, values=values, extra=extra)


def _numbers(
    values: Sequence[int | float | None] | np.ndarray[Any, np.dtype[Any]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _text(value: object) -> str | None:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _json(value: object) -> bytes:
    """Compact JSON; NaN and infinite numbers, which JSON has not, are null."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in cast("Sequence[object]", value)]
    return value
