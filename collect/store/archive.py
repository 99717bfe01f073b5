"""The stage `archive`: a finished activation store copied to an object store or another folder, and back.

Files keep their names, so that plain zarr reads an archive where it lies through `zarr.storage.ObjectStore`. An object
is written whole or not at all. `archive.json` (`collect.store.archive_list`) is written first, with the identity of the
store, and last, with the checksums of all objects; an interrupted copy continues with those that are missing or differ.

With compression, shards are encoded again (`collect.store.encoded_shard`), and the files that would differ otherwise,
the arrays' metadata and the manifest, are kept unchanged in `store/`. Only zarr reads such an archive directly.
`--restore` restores either kind of archive bit for bit, and refuses anything that was changed or lost.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
from tqdm import tqdm

from collect.artefact.inside import inside
from collect.artefact.json_file import read_json
from collect.artefact.lock import LOCK_SUFFIX, writing
from collect.artefact.seal import CHECKSUM
from collect.config import ArchiveConfig
from collect.errors import UserError
from collect.printable import printable
from collect.store.archive_list import KEPT, LIST_NAME, ArchiveList, ObjectEntry, entry_of, read_list, sizes
from collect.store.encoded_shard import encode_shard, encoded_metadata
from collect.store.manifest import ARCHIVED, MANIFEST_NAME, Manifest, read_manifest
from collect.store.rank_log import FORMAT, Layout
from collect.store.restore import MARKER_NAME, identity, restore
from collect.store.shards import DAMAGE_REMEDY, PARTIAL_SUFFIX, open_shard, read_rows
from collect.store.verify import find_problems
from collect.store.zarr_arrays import METADATA_NAME

if TYPE_CHECKING:
    from obstore.store import ObjectStore

logger = logging.getLogger(__name__)

ARCHIVE_FORMAT = "video-sae archived activations"
_LIST_EVERY_S = 10.0
_LEFT_OUT = frozenset({LOCK_SUFFIX, PARTIAL_SUFFIX, ".tmp"})
"""Locks and leftovers."""
_SHARD = re.compile(r"c/(0|[1-9][0-9]{0,9})/0")


def archive(config: ArchiveConfig) -> str:
    """Copy a store to an archive, or back.

    Returns:
        Where it was copied to.

    Raises:
        UserError: the store (or archive) is not finished or is damaged, the place holds another one, the object store
            refuses, or obstore is not installed.
    """
    folder = config.run / "activations"
    if not config.restore:
        read_manifest(folder)  # before anything is made: the place of the archive, or the folder by its lock
    target = open_target(config.at, make=not config.restore)
    from obstore.exceptions import BaseError

    try:
        with ExitStack() as held:
            for place in (folder, *_local_folder(config.at)):
                held.enter_context(writing(place))
            if config.restore:
                restore(target, folder)
                return str(folder)
            save(folder, target, compress=config.compress)
    except (BaseError, FileNotFoundError) as error:
        reason = printable(str(error).splitlines()[0])
        raise UserError(
            f"{printable(config.at, 500)} cannot be reached or written ({reason}): check its name and your "
            "credentials, and run this again; it goes on where it was."
        ) from None
    return config.at


def _local_folder(at: str) -> list[Path]:
    """The folder, if the archive is one; object stores have no locks."""
    if at.startswith("file://"):
        return [Path(unquote(urlsplit(at).path))]
    return [] if "://" in at else [Path(at)]


def open_target(at: str, *, make: bool = True) -> "ObjectStore":
    """Open an object store by its URL, or a folder by its path; credentials are those of the environment.

    Args:
        at: URL or path.
        make: whether to make a folder that is not there.

    Raises:
        UserError: obstore is not installed, or knows no such place.
    """
    try:
        import obstore.exceptions
        from obstore.store import LocalStore, from_url
    except ImportError:
        raise UserError("Archives need the package obstore: install it with `pip install obstore`.") from None
    try:
        return from_url(at) if "://" in at else LocalStore(at, mkdir=make)
    except (obstore.exceptions.BaseError, ValueError, OSError) as error:
        reason = printable(str(error).splitlines()[0])
        raise UserError(
            f"{printable(at, 500)} cannot be opened ({reason}): give a URL such as s3://bucket/name, or a folder."
        ) from None


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the content of one object comes from: a file, or something made when it is needed."""

    path: Path | None = None
    make: Callable[[], bytes] | None = None
    size: int
    """Bytes in the store, for the progress bar."""


def save(folder: Path, target: "ObjectStore", *, compress: bool = False) -> None:
    """Copy a finished store.

    Raises:
        UserError: the store is not finished or is damaged, or the archive is one of another store or of the other kind.
    """
    manifest = read_manifest(folder)
    problems = find_problems(folder)
    if problems:
        first = problems[0]
        raise UserError(
            f"{printable(folder, 4096)} is not archived, as {printable(first.path, 4096)} is wrong ({first.reason}): "
            "run `video-sae verify`, which lists all that is wrong and what to do."
        )
    there = sizes(target)
    store = identity(folder)
    assert store is not None, "a store without problems has one"
    sources = dict(_compressed(folder, manifest) if compress else _plain(folder))
    listed = read_list(target, there)
    if listed is None:
        in_way = next((name for name in sources if name in there), None)
        if in_way is not None:
            raise UserError(
                f"The archive's place holds {printable(in_way, 500)} already, but no {LIST_NAME} that says of which "
                "store: choose another place, or empty that one."
            )
        listed = ArchiveList(store=store, is_compressed=compress)
    elif listed.store != store:
        raise UserError("The archive's place holds another store: choose another place, or empty that one.")
    elif listed.is_compressed != compress:
        kind = "with" if listed.is_compressed else "without"
        raise UserError(
            f"The archive's place holds this store {kind} --compress: archive it {kind} again, or choose another place."
        )
    _sweep(target, {*sources, LIST_NAME})
    _Copy(target, listed, there).run(sources)


class _Copy:
    """Brings the objects of an archive up to date, along with its list."""

    def __init__(self, target: "ObjectStore", listed: ArchiveList, there: dict[str, int]) -> None:
        self._target, self._listed, self._there = target, listed, there
        self._listed_at = -_LIST_EVERY_S

    def run(self, sources: dict[str, _Source]) -> None:
        """Copy what is missing or differs, in order."""
        import obstore

        n_copied = 0
        with tqdm(total=sum(source.size for source in sources.values()), unit="B", unit_scale=True) as progress:
            for name, source in sources.items():
                known = self._listed.objects.get(name)
                is_there = known is not None and self._there.get(name) == known.size and self._is_whole(name)
                # An object that is made from the store has no checksum before that; the store is known to be the same.
                if not (is_there and (source.path is None or known == entry_of(source.path))):
                    if self._listed.is_complete or not n_copied:
                        self._listed.is_complete = False
                        self._listed.objects.pop(name, None)
                        self._write_list()
                    content: Any = source.path if source.make is None else source.make()
                    self._require_no_folder(name)
                    obstore.put(self._target, name, content)
                    entry = ObjectEntry.of(content) if source.path is None else entry_of(source.path)
                    assert entry is not None, f"{name} is a file"
                    self._listed.objects[name] = entry
                    n_copied += 1
                    if time.monotonic() - self._listed_at > _LIST_EVERY_S:
                        self._write_list()
                progress.update(source.size)
        if self._listed.is_complete and set(self._listed.objects) == set(sources):
            logger.info("the archive is complete: nothing to do")
            return
        self._listed.objects = {name: self._listed.objects[name] for name in sources}
        self._listed.is_complete = True
        self._write_list()

    def _is_whole(self, name: str) -> bool:
        """Whether an object is as listed; if it is not a file, only a restore fetches and checks it."""
        path = self._path(name)
        return path is None or self._listed.objects[name] == entry_of(path)

    def _require_no_folder(self, name: str) -> None:
        path = self._path(name)
        if path is not None and path.is_dir():
            raise UserError(f"{printable(path, 4096)} is a folder where a file belongs: move it away.")

    def _path(self, name: str) -> Path | None:
        """The file of an object in an archive that is a folder."""
        from obstore.store import LocalStore

        if not isinstance(self._target, LocalStore) or self._target.prefix is None:
            return None
        return inside(Path(self._target.prefix), name)

    def _write_list(self) -> None:
        import obstore

        obstore.put(self._target, LIST_NAME, self._listed.encoded())
        self._listed_at = time.monotonic()


def _plain(folder: Path) -> Iterator[tuple[str, _Source]]:
    """Every file as it is; the manifest comes last."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path.suffix not in _LEFT_OUT
    )
    for name in sorted(names, key=lambda name: name == MANIFEST_NAME):
        if name not in {LIST_NAME, MARKER_NAME}:
            path = inside(folder, name)
            yield name, _Source(path=path, size=path.stat().st_size)


def _compressed(folder: Path, manifest: Manifest) -> Iterator[tuple[str, _Source]]:
    """Shards encoded, with metadata to match; everything else as it is."""
    layout = manifest.layout
    arrays = {f"{entry.zarr}/{array}/": (entry, array) for entry in manifest.ranks for array in layout.arrays()}
    for name, source in _plain(folder):
        owner = next((place for place in arrays if name.startswith(place)), None)
        if owner is None:
            yield KEPT * (name == MANIFEST_NAME) + name, source
            continue
        entry, array = arrays[owner]
        if name == owner + METADATA_NAME:
            yield KEPT + name, source
            make = partial(encoded_metadata, layout, array, entry.n_tokens)
        elif shard := _SHARD.fullmatch(name, len(owner)):
            make = partial(_encode, folder / name, int(shard[1]), layout, array, entry.n_tokens)
        else:
            continue
        yield name, _Source(make=make, size=source.size)
    archived = {**read_json(folder / MANIFEST_NAME, DAMAGE_REMEDY), "format": ARCHIVE_FORMAT, ARCHIVED: FORMAT}
    text = (json.dumps({name: archived[name] for name in archived if name != CHECKSUM}, indent=2) + "\n").encode()
    yield MANIFEST_NAME, _Source(make=lambda: text, size=0)


def _encode(path: Path, shard: int, layout: Layout, array: str, n_tokens: int) -> bytes:
    width, dtype = layout.arrays()[array]
    n_rows = min(layout.shard_rows, n_tokens - shard * layout.shard_rows)
    rows = np.empty((n_rows, width), dtype=dtype)
    opened = open_shard(
        path,
        row_start=0,
        row_stop=n_rows,
        n_chunks=layout.shard_rows // layout.chunk_rows,
        chunk_rows=layout.chunk_rows,
        row_bytes=width * dtype.itemsize,
    )
    read_rows(opened, 0, n_rows, rows)
    return encode_shard(rows, layout, array)


def _sweep(target: "ObjectStore", names: Collection[str]) -> None:
    """Remove objects that a killed copy to a folder left unfinished: `NAME#1` and so on, which listings leave out."""
    from obstore.store import LocalStore

    if not isinstance(target, LocalStore) or target.prefix is None:
        return
    folder = Path(target.prefix)
    for path in folder.rglob("*#*"):
        name, mark, number = str(path.relative_to(folder)).rpartition("#")
        if mark and number.isdecimal() and name in names and not path.is_dir():
            path.unlink()
