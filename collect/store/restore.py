"""Restoring a store from an archive: every object is checked, and no other store is overwritten.

The folder must be empty, hold the same store (whose missing or changed files are then repaired), or hold
`restoring.json`, which says that restoring this store was begun there. The order is the same as in collecting: shards,
logs, then the files that list them, and the manifest last.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt32
from tqdm import tqdm

from collect.artefact.folder import CONFIG_NAME, remove_orphans, sync_folder, write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_file import read_bytes, read_json
from collect.errors import UserError
from collect.printable import printable
from collect.store.archive_list import (
    KEPT,
    LIST_NAME,
    REMEDY,
    ArchiveList,
    ObjectEntry,
    entry_of,
    fetch,
    read_list,
    sizes,
    verified,
)
from collect.store.encoded_shard import decode_shard
from collect.store.manifest import MANIFEST_NAME, Manifest, parse_manifest, read_manifest
from collect.store.rank_log import RankLog
from collect.store.shards import DAMAGE_REMEDY, PARTIAL_SUFFIX, open_shard, read_rows, write_shard
from collect.store.zarr_arrays import METADATA_NAME

if TYPE_CHECKING:
    from obstore.store import ObjectStore

logger = logging.getLogger(__name__)

MARKER_NAME = "restoring.json"
_MOST_MANIFEST_BYTES = 1 << 30
_PLAN_NAME = "plan.json"


def restore(target: "ObjectStore", folder: Path) -> None:
    """Restore a store from an archive; the manifest comes last.

    Raises:
        UserError: the archive is not complete, an object of it was lost or changed, or the folder holds another store.
    """
    there = sizes(target)
    listed = _complete_list(target, there)
    for name, entry in listed.objects.items():
        if name not in there:
            raise UserError(f"The archive has lost its object {printable(name, 500)}: {REMEDY}.")
        if there[name] != entry.size:
            raise UserError(
                f"The archive's object {printable(name, 500)} has {there[name]:,} bytes instead of {entry.size:,}: "
                f"{REMEDY}."
            )
    prefix = KEPT if listed.is_compressed else ""
    own = listed.objects.get(prefix + MANIFEST_NAME)
    if own is None or own.size > _MOST_MANIFEST_BYTES:
        raise UserError(f"{LIST_NAME} has no manifest of a store: {REMEDY}.")
    manifest = parse_manifest(fetch(target, prefix + MANIFEST_NAME, own), folder / MANIFEST_NAME)
    arrays = {f"{entry.zarr}/{array}/" for entry in manifest.ranks for array in manifest.layout.arrays()}
    _require_all(listed, manifest)
    if listed.is_compressed:
        for name in (MANIFEST_NAME, *(f"{place}{METADATA_NAME}" for place in sorted(arrays))):
            if name in listed.objects:  # for plain zarr only; but changes are reported
                fetch(target, name, listed.objects[name])
    is_new = _claim(folder, listed.store)
    if listed.is_compressed:
        _decode(target, listed, manifest, folder)
    names = {
        name.removeprefix(prefix) if name.startswith(prefix) else name: (name, entry)
        for name, entry in sorted(listed.objects.items())
        if not listed.is_compressed or name.startswith(prefix) or not name.startswith((*arrays, MANIFEST_NAME))
    }
    n_written = 0
    with tqdm(total=sum(entry.size for _, entry in names.values()), unit="B", unit_scale=True) as progress:
        for name in _ordered(names, manifest):
            source, entry = names[name]
            n_written += _bring(target, source, entry, inside(folder, name))
            progress.update(entry.size)
    (folder / MARKER_NAME).unlink(missing_ok=True)
    if not is_new and not n_written:
        logger.info("%s is there already: nothing to do", folder)


def identity(folder: Path) -> str | None:
    """Hash of what identifies a finished store, its manifest and logs; None if there is no such store."""
    try:
        manifest = read_manifest(folder)
        digest = hashlib.sha256(read_bytes(manifest.path, DAMAGE_REMEDY))
        for entry in manifest.ranks:
            digest.update(hashlib.sha256(read_bytes(manifest.log(entry), DAMAGE_REMEDY)).digest())
    except UserError:
        return None
    return digest.hexdigest()


def _complete_list(target: "ObjectStore", there: dict[str, int]) -> ArchiveList:
    listed = read_list(target, there)
    if listed is None and MANIFEST_NAME in there:
        raise UserError(
            f"The archive has no {LIST_NAME} with the checksums of its objects, so that what was lost cannot be found "
            "out: if an earlier version of this program wrote it, restore it with that one and `video-sae verify` what "
            "comes of it; else archive the store again to another place."
        )
    if listed is None or not listed.is_complete:
        raise UserError(
            "The archive is not complete: run the `video-sae archive` that was writing it again; it goes on there."
        )
    return listed


def _require_all(listed: ArchiveList, manifest: Manifest) -> None:
    """Make sure that the list has every file that the manifest names, before any is written."""
    layout = manifest.layout
    for rank in manifest.ranks:
        n_shards = -(-rank.n_tokens // layout.shard_rows)
        kept = KEPT if listed.is_compressed else ""
        metadata = (f"{kept}{rank.zarr}/{array}/{METADATA_NAME}" for array in layout.arrays())
        shards = (f"{rank.zarr}/{array}/c/{k}/0" for array in layout.arrays() for k in range(n_shards))
        for name in chain((rank.log,), metadata, shards):
            if name not in listed.objects:
                raise UserError(f"The archive lacks {printable(name, 500)}, which its manifest needs: {REMEDY}.")


def _claim(folder: Path, store: str) -> bool:
    """Make sure that the folder is this store's; returns whether it was incomplete before.

    Raises:
        UserError: it holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{printable(folder, 4096)} is not a folder: move it away, or choose another --run.")
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER_NAME
    if os.path.lexists(marker):
        content: object = read_json(marker, f"delete {printable(folder, 4096)} and restore again")
        is_own = content == {"store": store}
    else:
        is_empty = all(path.suffix in {".lock", ".tmp"} for path in folder.iterdir())
        if not is_empty and identity(folder) == store:
            return False
        is_own = is_empty
        if is_empty:
            write_atomic(marker, json.dumps({"store": store}) + "\n")
    if not is_own:
        raise UserError(
            f"{printable(folder, 4096)} holds another store, or files of one that is not complete: choose another "
            "--run, or delete that folder."
        )
    remove_orphans(folder)
    return True


def _ordered(names: Iterable[str], manifest: Manifest) -> list[str]:
    """Shards and metadata first, then logs, then what a rerun of `collect` would look for, then the manifest."""
    last = [*(entry.log for entry in manifest.ranks), _PLAN_NAME, CONFIG_NAME, MANIFEST_NAME]
    return sorted(names, key=lambda name: (last.index(name) if name in last else -1, name))


def _bring(target: "ObjectStore", name: str, entry: ObjectEntry, path: Path) -> bool:
    """Write one object to a file unless it is there already; returns whether it was written."""
    if entry_of(path) == entry:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    partial.unlink(missing_ok=True)
    try:
        with verified(target, name, entry) as parts, partial.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
    except UserError:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    sync_folder(path.parent)
    return True


def _decode(target: "ObjectStore", listed: ArchiveList, manifest: Manifest, folder: Path) -> None:
    """Write every shard of every rank as it is in the store; complete ones that are there are left."""
    layout = manifest.layout
    for rank in manifest.ranks:
        log = _log_there(manifest.log(rank))
        for array, (width, dtype) in layout.arrays().items():
            starts = range(0, rank.n_tokens, layout.shard_rows)
            for k, start in enumerate(tqdm(starts, unit="shard", desc=printable(array))):
                name = f"{rank.zarr}/{array}/c/{k}/0"
                path = inside(folder, name)
                n_rows = min(layout.shard_rows, rank.n_tokens - start)
                crcs = None if log is None or k >= log.n_shards else log.chunk_crcs(array, k)
                if _is_whole(path, manifest, n_rows, width, dtype, crcs):
                    continue
                try:
                    rows = decode_shard(fetch(target, name, listed.objects[name]), n_rows, layout, array)
                except ValueError as error:
                    if isinstance(error, UserError):
                        raise
                    raise UserError(
                        f"The archive's object {printable(name, 500)} is no shard ({printable(error)}): {REMEDY}."
                    ) from None
                write_shard(path, rows, shard_rows=layout.shard_rows, chunk_rows=layout.chunk_rows)


def _log_there(path: Path) -> RankLog | None:
    """The log of a rank, which comes after its shards; None if there is none yet."""
    try:
        return RankLog.read(path)
    except UserError:
        return None


def _is_whole(
    path: Path,
    manifest: Manifest,
    n_rows: int,
    width: int,
    dtype: np.dtype[Any],
    chunk_crcs: UInt32[np.ndarray, " chunk"] | None,
) -> bool:
    layout = manifest.layout
    try:
        shard = open_shard(
            path,
            row_start=0,
            row_stop=n_rows,
            n_chunks=layout.shard_rows // layout.chunk_rows,
            chunk_rows=layout.chunk_rows,
            row_bytes=width * dtype.itemsize,
            chunk_crcs=chunk_crcs,
        )
        read_rows(shard, 0, n_rows, np.empty((n_rows, width), dtype=dtype))
    except UserError:
        return False
    return True
