"""`archive.json`: what an archive holds, object by object, and from which store.

It is the first object of an archive, so that nothing is added to the archive of another store. It is rewritten as more
objects arrive, and marked as complete when all have. The checksum of each object tells whether it was changed.
"""

import hashlib
import json
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from collect.artefact.inside import inside, is_relative, open_regular
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import parse_json
from collect.artefact.lock import LOCK_SUFFIX
from collect.artefact.seal import object_condition, seal_object
from collect.errors import UserError
from collect.printable import printable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

LIST_NAME = "archive.json"
KEPT = "store/"
"""Where a compressed archive has files as they are in the store."""
FORMAT = "video-sae archive"
FORMAT_VERSION = 2
REMEDY = "archive the store again to another place, or restore the object from a copy"
_MOST_BYTES = 1 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class ObjectEntry:
    """One object: bytes, and SHA-256 in hexadecimal digits."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> "ObjectEntry":
        """The entry of an object with this content."""
        return cls(size=len(data), sha256=hashlib.sha256(data).hexdigest())


@dataclass(kw_only=True)
class ArchiveList:
    """The list of an archive."""

    store: str
    """`identity` of the archived store."""
    is_compressed: bool
    is_complete: bool = False
    objects: dict[str, ObjectEntry] = field(default_factory=dict[str, ObjectEntry])
    """Name -> what it should hold."""

    def encoded(self) -> bytes:
        """As it is written."""
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "store": self.store,
            "compressed": self.is_compressed,
            "complete": self.is_complete,
            "objects": {
                name: {"size": entry.size, "sha256": entry.sha256} for name, entry in sorted(self.objects.items())
            },
        }
        return (json.dumps(seal_object(content), indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> "ArchiveList":
        """Read what `encoded` gave.

        Raises:
            UserError: it was changed, or is of another version.
        """
        content: object = parse_json(data, LIST_NAME, REMEDY)
        fields = Fields(content, LIST_NAME, REMEDY)
        if fields.text("format") != FORMAT or fields.integer("version") != FORMAT_VERSION:
            raise UserError(f"{LIST_NAME} is of another version than {FORMAT_VERSION}: use the program that wrote it.")
        if object_condition(cast("dict[str, Any]", content)) != "whole":
            raise UserError(f"{LIST_NAME} fails its checksum, so it was changed after it was written: {REMEDY}.")
        named = fields.child("objects")
        objects: dict[str, ObjectEntry] = {}
        for name in named.names():
            entry = named.child(name)
            if not is_relative(name):
                raise named.error(name, "an object whose name leads to no other folder")
            if not _SHA256.fullmatch(entry.text("sha256")):
                raise entry.error("sha256", "64 hexadecimal digits")
            objects[name] = ObjectEntry(size=entry.count("size"), sha256=entry.text("sha256"))
        return cls(
            store=fields.text("store"),
            is_compressed=fields.flag("compressed"),
            is_complete=fields.flag("complete"),
            objects=objects,
        )


def entry_of(path: Path) -> ObjectEntry | None:
    """Size and checksum of a file; None if there is no regular one."""
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123  # a descriptor
            return ObjectEntry(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return None


def sizes(target: "ObjectStore") -> dict[str, int]:
    """Objects of an archive and their sizes."""
    import obstore

    return {
        item["path"]: item["size"]
        for page in obstore.list(target)
        for item in page
        if not item["path"].endswith(LOCK_SUFFIX)
    }


def read_list(target: "ObjectStore", there: dict[str, int]) -> ArchiveList | None:
    """Read the list of an archive; None if there is none.

    Args:
        target: the archive.
        there: `sizes` of it.

    Raises:
        UserError: it is damaged.
    """
    import obstore

    if LIST_NAME not in there:
        return None
    check_place(target, LIST_NAME)
    if there[LIST_NAME] > _MOST_BYTES:
        raise UserError(f"{LIST_NAME} has {there[LIST_NAME]:,} bytes, more than the {_MOST_BYTES:,} allowed: {REMEDY}.")
    return ArchiveList.parse(bytes(obstore.get(target, LIST_NAME).bytes()))


def check_place(target: "ObjectStore", name: str) -> None:
    """Make sure that an object of an archive in a folder lies in that folder.

    Raises:
        UserError: it is a link that leads out.
    """
    from obstore.store import LocalStore

    if isinstance(target, LocalStore) and target.prefix is not None:
        inside(Path(target.prefix), name)


@contextmanager
def verified(target: "ObjectStore", name: str, entry: ObjectEntry) -> Generator[Iterator[bytes]]:
    """Parts of an object, one after another; after the last one, the caller learns whether they were right.

    Raises:
        UserError: the object is not what the list says.
    """
    import obstore

    check_place(target, name)
    digest, n_bytes = hashlib.sha256(), 0

    def parts() -> Iterator[bytes]:
        nonlocal n_bytes
        for part in obstore.get(target, name).stream(min_chunk_size=1 << 22):
            data = bytes(part)
            n_bytes += len(data)
            if n_bytes > entry.size:
                break
            digest.update(data)
            yield data

    yield parts()
    if (n_bytes, digest.hexdigest()) != (entry.size, entry.sha256):
        raise UserError(f"The archive's object {printable(name, 500)} was changed after it was archived: {REMEDY}.")


def fetch(target: "ObjectStore", name: str, entry: ObjectEntry) -> bytes:
    """The whole content of an object.

    Raises:
        UserError: it is not what the list says.
    """
    with verified(target, name, entry) as parts:
        return b"".join(parts)
