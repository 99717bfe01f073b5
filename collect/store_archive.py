"""The stage `archive`: a finished activation store copied to an object store or another folder, and back.

Files keep their names, so that plain zarr reads an archive where it lies through `zarr.storage.ObjectStore`. An object
is written whole or not at all, and the manifest last: an archive that has one is complete. An interrupted copy goes on
with the objects that are missing or have another size.

With compression, shards are encoded anew (Blosc with zstd and bit shuffling, then crc32c). Only zarr reads such an
archive directly; `--restore` brings the store back bit by bit.
"""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from tqdm import tqdm

from collect.artefact import write_atomic
from collect.config import ArchiveConfig
from collect.errors import UserError
from collect.printable import printable
from collect.shards import PARTIAL_SUFFIX, write_shard
from collect.store import COORDS, MANIFEST_NAME, ActivationStore, array_dtype, read_manifest

if TYPE_CHECKING:
    from obstore.store import ObjectStore

logger = logging.getLogger(__name__)

ARCHIVE_FORMAT = "video-sae archived activations"


def archive(config: ArchiveConfig) -> str:
    """Copy a store to an archive, or back.

    Returns:
        Where it was copied to.

    Raises:
        UserError: the store (or archive) is not finished, the object store refuses, or obstore is not installed.
    """
    target = open_target(config.at)
    folder = config.run / "activations"
    from obstore.exceptions import BaseError

    try:
        if config.restore:
            restore(target, folder)
            return str(folder)
        save(folder, target, compress=config.compress)
    except BaseError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{config.at} cannot be reached or written ({reason}): check its name and your credentials, and run this "
            "again; it goes on where it was."
        ) from None
    return config.at


def open_target(at: str) -> "ObjectStore":
    """Open an object store by its URL, or a folder by its path; credentials are those of the environment.

    Raises:
        UserError: obstore is not installed, or knows no such place.
    """
    try:
        import obstore.exceptions
        from obstore.store import LocalStore, from_url
    except ImportError:
        raise UserError("Archives need the package obstore: install it with `pip install obstore`.") from None
    try:
        return from_url(at) if "://" in at else LocalStore(at, mkdir=True)
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise UserError(f"{at} cannot be opened ({error}): give a URL such as s3://bucket/name, or a folder.") from None


def save(folder: Path, target: "ObjectStore", *, compress: bool = False) -> None:
    """Copy a finished store; the manifest comes last.

    Raises:
        UserError: the store is not finished.
    """
    import obstore

    ActivationStore.open(folder)
    manifest = read_manifest(folder)
    arrays = _array_folders(manifest) if compress else ()
    there = _sizes(target)
    names = [name for name in _files(folder) if name != MANIFEST_NAME and not name.startswith(arrays)]
    with tqdm(total=sum((folder / name).stat().st_size for name in names), unit="B", unit_scale=True) as progress:
        for name in names:
            size = (folder / name).stat().st_size
            if there.get(name) != size:
                obstore.put(target, name, folder / name)
            progress.update(size)
    if compress:
        _encode(folder, manifest, target, there)
        manifest = {**manifest, "format": ARCHIVE_FORMAT, "archived": manifest["format"]}
        obstore.put(target, MANIFEST_NAME, _text(manifest))
    else:
        obstore.put(target, MANIFEST_NAME, folder / MANIFEST_NAME)


def restore(target: "ObjectStore", folder: Path) -> None:
    """Bring an archive back as a store; the manifest comes last.

    Raises:
        UserError: the archive has no manifest, or the folder holds another store.
    """
    import obstore

    there = _sizes(target)
    if MANIFEST_NAME not in there:
        raise UserError("The archive has no manifest, so it is not complete: archive the store again.")
    text = bytes(obstore.get(target, MANIFEST_NAME).bytes())
    manifest: dict[str, Any] = json.loads(text)
    is_encoded = manifest["format"] == ARCHIVE_FORMAT
    if is_encoded:
        manifest["format"] = manifest.pop("archived")
        text = _text(manifest)
    if (folder / MANIFEST_NAME).exists():
        if (folder / MANIFEST_NAME).read_bytes() != text:
            raise UserError(f"{folder} holds another store: choose another --run.")
        logger.info("%s is there already: nothing to do", folder)
        return
    arrays = _array_folders(manifest) if is_encoded else ()
    # zarr declares a group at the root of an encoded archive, which a store does not have.
    names = [name for name in there if name not in {MANIFEST_NAME, "zarr.json"} and not name.startswith(arrays)]
    with tqdm(total=sum(there[name] for name in names), unit="B", unit_scale=True) as progress:
        for name in names:
            path = folder / name
            if not (path.is_file() and path.stat().st_size == there[name]):
                write_atomic(path, bytes(obstore.get(target, name).bytes()))
            progress.update(there[name])
    if is_encoded:
        _decode(target, manifest, folder)
    write_atomic(folder / MANIFEST_NAME, text)


def _text(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2) + "\n").encode()


def _encode(folder: Path, manifest: dict[str, Any], target: "ObjectStore", there: dict[str, int]) -> None:
    """Write every array of every rank compressed, shard by shard."""
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import ObjectStore as ZarrStore

    for rank, array in _arrays(manifest):
        source = _open_local(folder / rank["zarr"] / array)
        place = f"{rank['zarr']}/{array}"
        copy: Any = (
            zarr.open_array(ZarrStore(target), path=place, mode="r+")
            if f"{place}/zarr.json" in there
            else zarr.create_array(
                ZarrStore(target),
                name=place,
                shape=source.shape,
                dtype=source.dtype,
                shards=source.shards,
                chunks=source.chunks,
                fill_value=0,
                dimension_names=source.metadata.dimension_names,
                compressors=[
                    BloscCodec(typesize=source.dtype.itemsize, cname="zstd", shuffle="bitshuffle"),
                    Crc32cCodec(),
                ],
                attributes=dict(source.attrs),
                config={"write_empty_chunks": True},
            )
        )
        starts = range(0, rank["n_tokens"], manifest["shard_rows"])
        for k, start in enumerate(tqdm(starts, unit="shard", desc=printable(array))):
            if f"{place}/c/{k}/0" not in there:
                stop = min(start + manifest["shard_rows"], rank["n_tokens"])
                copy[start:stop] = source[start:stop]


def _decode(target: "ObjectStore", manifest: dict[str, Any], folder: Path) -> None:
    """Write every array of every rank as the store has it, and its metadata from a fresh array of the same shape."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import ObjectStore as ZarrStore

    for rank, array in _arrays(manifest):
        place = f"{rank['zarr']}/{array}"
        source: Any = zarr.open_array(ZarrStore(target, read_only=True), path=place, mode="r")
        group = zarr.open_group(folder / rank["zarr"], mode="a", zarr_format=3)
        group.create_array(
            array,
            shape=source.shape,
            dtype=source.dtype,
            shards=source.shards,
            chunks=source.chunks,
            fill_value=0,
            dimension_names=source.metadata.dimension_names,
            compressors=[Crc32cCodec()],
            attributes=dict(source.attrs),
            config={"write_empty_chunks": True},
            overwrite=True,
        )
        metadata = folder / place / "zarr.json"
        write_atomic(metadata, json.dumps(json.loads(metadata.read_text(encoding="utf-8")), indent=2) + "\n")
        dtype = np.dtype("<i4") if array == COORDS else array_dtype(manifest["sites"][array]["dtype"])
        starts = range(0, rank["n_tokens"], manifest["shard_rows"])
        for k, start in enumerate(tqdm(starts, unit="shard", desc=printable(array))):
            stop = min(start + manifest["shard_rows"], rank["n_tokens"])
            rows = np.ascontiguousarray(source[start:stop]).astype(dtype, copy=False)
            path = folder / rank["zarr"] / array / "c" / str(k) / "0"
            write_shard(path, rows, shard_rows=manifest["shard_rows"], chunk_rows=manifest["chunk_rows"])


def _arrays(manifest: dict[str, Any]) -> Iterable[tuple[dict[str, Any], str]]:
    return [(rank, array) for rank in manifest["ranks"] for array in (COORDS, *manifest["sites"])]


def _array_folders(manifest: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{rank['zarr']}/{array}/" for rank, array in _arrays(manifest))


def _open_local(folder: Path) -> Any:
    import zarr

    return cast("Any", zarr.open_array(folder, mode="r"))


def _files(folder: Path) -> list[str]:
    """Names of a store's files, without locks and leftovers."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in {".lock", PARTIAL_SUFFIX, ".tmp"}
    )


def _sizes(target: "ObjectStore") -> dict[str, int]:
    """Objects of an archive and their sizes."""
    import obstore

    return {item["path"]: item["size"] for page in obstore.list(target) for item in page}
