"""The files of both orders of the codes and the seal over them: what makes them believable before a number is used.

Either order is a compressed matrix: `codes.zarr` has a row per token, `codes_by_latent.zarr` a row per latent.

Every chunk file ends with the crc32c of its content, which zarr verifies when it reads the chunk. The seal covers the
rest: it is a hash over the metadata of the arrays and over name, length and crc32c of every chunk. So opening the codes
reads a few bytes per file, and a changed bit anywhere, a missing chunk or one that belongs elsewhere is found.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.codecs import Crc32cCodec

from collect.artefact.inside import open_regular
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_bytes, read_json
from collect.errors import UserError
from collect.printable import printable

ARRAYS = {"indptr": "int64", "indices": "int32", "values": "float32"}
CHUNK = 1 << 18
SEAL = "sha256"
METADATA_NAME = "zarr.json"
_CRC_BYTES = 4


def remedy(folder: Path) -> str:
    """What to do about damaged codes, as the end of a sentence."""
    return f"delete {printable(folder, 4096)} and run `video-sae features` again"


def damaged(folder: Path, reason: str) -> UserError:
    """The error for codes that cannot be believed."""
    return UserError(f"{printable(folder, 4096)} is damaged ({reason}): {remedy(folder)}.")


def create_group(folder: Path, n_rows: int, attributes: Mapping[str, Any]) -> zarr.Group:
    """Make the group and its arrays, empty but for the length of `indptr`; what is there is removed."""
    group = zarr.open_group(folder, mode="w")
    group.attrs.update(dict(attributes))
    for name, dtype in ARRAYS.items():
        length = n_rows + 1 if name == "indptr" else 0
        group.create_array(name, shape=(length,), dtype=dtype, chunks=(CHUNK,), compressors=[Crc32cCodec()])
    return group


def open_group(folder: Path, mode: Any) -> tuple[zarr.Group, dict[str, zarr.Array[Any]]]:
    """Open the group and check that its arrays are of the kind that `create_group` makes.

    Raises:
        UserError: they are not, zarr cannot read their metadata, or it would wait for a pipe in the place of a file.
    """
    no_file = next((path for path in folder.rglob("*") if not path.is_dir() and not path.is_file()), None)
    if no_file is not None:
        raise damaged(folder, f"{printable(no_file.relative_to(folder))} is not a file")
    try:
        group = zarr.open_group(folder, mode=mode)
        arrays = {name: group[name] for name in ARRAYS}
    except Exception as error:  # zarr checks metadata by whatever its parsers raise
        raise damaged(folder, printable(repr(error), 160)) from None
    checked: dict[str, zarr.Array[Any]] = {}
    for name, array in arrays.items():
        if (
            not isinstance(array, zarr.Array)
            or array.dtype != ARRAYS[name]
            or array.ndim != 1
            or array.chunks != (CHUNK,)
            or not any(isinstance(codec, Crc32cCodec) for codec in array.compressors)
        ):
            raise damaged(folder, f"{name} is not the array that it should be")
        checked[name] = array
    return group, checked


def read_array(
    folder: Path, arrays: Mapping[str, zarr.Array[Any]], name: str, start: int, stop: int
) -> Shaped[np.ndarray, " entry"]:
    """Read a part of one array, whose chunks' checksums zarr verifies.

    Raises:
        UserError: a chunk is damaged or cannot be read.
    """
    try:
        return np.asarray(arrays[name][start:stop])
    except Exception as error:  # zarr passes on whatever its codecs and the file system raise
        raise damaged(folder, f"{name}: {printable(error, 160)}") from None


def seal(folder: Path, group: zarr.Group) -> None:
    """Put the seal into the group's attributes, after everything is written."""
    group.attrs[SEAL] = files_hash(folder)


def check_seal(folder: Path) -> dict[str, Any]:
    """Compare the files with their seal and return the group's attributes.

    Raises:
        UserError: there are no codes, they have no seal, or they were changed after they were written.
    """
    if not (folder / METADATA_NAME).exists():
        raise UserError(f"{printable(folder, 4096)} does not exist or is incomplete: run `video-sae features` first.")
    attributes = _metadata(folder).get("attributes")
    if not isinstance(attributes, dict) or SEAL not in attributes:
        raise damaged(folder, "it has no checksum, or was written by an earlier version")
    if attributes[SEAL] != files_hash(folder):
        raise damaged(folder, "its checksum does not match")
    fields = Fields(attributes, printable(folder / METADATA_NAME, 4096), remedy(folder))
    if fields.integer("d_sae") < 1:
        raise fields.error("d_sae", "a number above 0")
    fields.text("site")
    return dict(attributes)


def files_hash(folder: Path) -> str:
    """SHA-256 over the metadata without the seal, and over name, length and crc32c of every chunk, in order."""
    metadata = _metadata(folder)
    attributes = metadata.get("attributes")
    if isinstance(attributes, dict):
        metadata = {**metadata, "attributes": {name: v for name, v in attributes.items() if name != SEAL}}
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in ARRAYS:
        _metadata(folder / name)
        digest.update(read_bytes(folder / name / METADATA_NAME, remedy(folder)))
        for chunk, length, crc in _chunks(folder / name / "c"):
            digest.update(f"{name}/{chunk} {length} {crc.hex()}\n".encode())
    return digest.hexdigest()


def _metadata(folder: Path) -> dict[str, Any]:
    content: object = read_json(folder / METADATA_NAME, remedy(folder))
    if not isinstance(content, dict):
        raise damaged(folder, f"{METADATA_NAME} is not a JSON object")
    return content


def _chunks(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Name, length and last four bytes of each chunk file, by name."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if not path.name.isdecimal():  # what a killed process had begun to write
            continue
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(max(0, length - _CRC_BYTES))
                yield path.name, length, file.read(_CRC_BYTES)
        except OSError as error:
            raise damaged(folder.parent.parent, f"{printable(path.name)}: {error.strerror}") from None
