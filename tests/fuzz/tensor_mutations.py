"""Mutations of what a safetensors file says: values, shapes, types and the length of its header."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

LENGTHS = (0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1)


def _edit(path: Path, edit: Callable[[dict[str, Any], bytearray], str | None]) -> str | None:
    """Change header and values in place."""
    data = path.read_bytes()
    try:
        (n,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + n])
    except (ValueError, struct.error):
        return None
    values = bytearray(data[8 + n :])
    words = edit(header, values)
    if words is None:
        return None
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + values)
    return words


def _names(header: dict[str, Any]) -> list[str]:
    return sorted(name for name in header if name != "__metadata__")


def put_value(path: Path, rng: Random, _: Path) -> str | None:
    """Write NaN, infinity or something huge over one number of a float32 tensor."""

    def edit(header: dict[str, Any], values: bytearray) -> str | None:
        floats = [name for name in _names(header) if header[name]["dtype"] == "F32" and header[name]["shape"]]
        if not floats:
            return None
        name, value = rng.choice(floats), rng.choice((float("nan"), float("inf"), 1e38, -1e38))
        start, stop = header[name]["data_offsets"]
        place = start + 4 * rng.randrange(max(1, (stop - start) // 4))
        values[place : place + 4] = struct.pack("<f", value)
        return f"put {value} into {name}"

    return _edit(path, edit)


def change_shape(path: Path, rng: Random, _: Path) -> str | None:
    """Declare another shape: turned round, flat, empty, negative or huge."""

    def edit(header: dict[str, Any], _: bytearray) -> str | None:
        if not _names(header):
            return None
        name = rng.choice(_names(header))
        shape = header[name]["shape"]
        n = 1
        for side in shape:
            n *= side
        header[name]["shape"] = rng.choice((shape[::-1], [n], [1, *shape], [], [0], [-1], [2**40], [2**62, 4]))
        return f"declared {name} as {header[name]['shape']} instead of {shape}"

    return _edit(path, edit)


def change_dtype(path: Path, rng: Random, _: Path) -> str | None:
    """Declare another type of the same or another width."""

    def edit(header: dict[str, Any], _: bytearray) -> str | None:
        if not _names(header):
            return None
        name, dtype = rng.choice(_names(header)), rng.choice(("I32", "F16", "F64", "I64", "BOOL", "F8_E4M3", "X1"))
        header[name]["dtype"] = dtype
        return f"declared {name} as {dtype}"

    return _edit(path, edit)


def rename_tensor(path: Path, rng: Random, _: Path) -> str | None:
    """Give a tensor another name, or leave it out of the header."""

    def edit(header: dict[str, Any], _: bytearray) -> str | None:
        if not _names(header):
            return None
        name = rng.choice(_names(header))
        header["other"] = header.pop(name)
        return f"renamed {name}"

    return _edit(path, edit)


def change_offsets(path: Path, rng: Random, _: Path) -> str | None:
    """Declare that a tensor lies elsewhere."""

    def edit(header: dict[str, Any], _: bytearray) -> str | None:
        if not _names(header):
            return None
        name = rng.choice(_names(header))
        start, stop = header[name]["data_offsets"]
        header[name]["data_offsets"] = rng.choice(
            ([start + 4, stop + 4], [0, stop - start], [start, 2**60], [stop, start])
        )
        return f"moved {name} to {header[name]['data_offsets']}"

    return _edit(path, edit)


def change_metadata(path: Path, rng: Random, _: Path) -> str | None:
    """Change the header's own texts."""

    def edit(header: dict[str, Any], _: bytearray) -> str | None:
        metadata = header.get("__metadata__")
        if not metadata:
            return None
        key, value = (
            rng.choice(sorted(metadata)),
            rng.choice(("", "{}", "[" * 10_000, "9" * 5000, '{"step": -1}', "\x1b[31m")),
        )
        metadata[key] = value
        return f"metadata {key} became {value[:20]!r}"

    return _edit(path, edit)


def change_header_length(path: Path, rng: Random, _: Path) -> str | None:
    """Declare another length of the header."""
    n = rng.choice(LENGTHS)
    path.write_bytes(struct.pack("<Q", n) + path.read_bytes()[8:])
    return f"declared a header of {n} bytes"


MUTATIONS = (
    put_value,
    put_value,
    change_shape,
    change_dtype,
    rename_tensor,
    change_offsets,
    change_metadata,
    change_header_length,
)
