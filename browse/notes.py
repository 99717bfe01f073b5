"""What people write into a run while they look at it: notes, names, judgements, saved views, answers of blind tests.

    RUN/notes/events.jsonl    one line per change, with its own checksum; lines are only ever appended

Each kind and key has a version, which grows by one with every change. A change names the version that it was made from;
if somebody else has changed the key since, it is refused, and nothing is lost. A line is appended and flushed to disk
while the folder is locked, so that any number of pages and servers may write at once. A last line without a newline,
which a killed process left, counts as not written.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import sync_folder
from collect.artefact.inside import open_regular
from collect.artefact.lock import writing
from collect.artefact.seal import object_condition, seal_object
from collect.errors import UserError
from collect.printable import printable

log = logging.getLogger(__name__)

EVENTS_NAME = "events.jsonl"
KINDS = {"note": "notes", "name": "names", "judgement": "judgements", "view": "views", "blind": "blind"}
"""Kinds of what is written, and what all of a kind are called."""
MOST_KEY = 1000
"""Characters of a key."""
MOST_VALUE_BYTES = 64 << 10
MOST_BYTES = 256 << 20
"""Of the file."""


class ConflictError(Exception):
    """Somebody else has changed a key since; `current` is what it holds now."""

    def __init__(self, current: Entry) -> None:
        super().__init__(current.key)
        self.current = current


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a key holds."""

    kind: str
    key: str
    value: Any
    """Any JSON; None if it was deleted or never written."""
    version: int
    """Changes so far."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"kind": self.kind, "key": self.key, "value": self.value, "version": self.version}


class Notes:
    """The notes of a run.

    Args:
        folder: `RUN/notes`; it is made when the first note is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / EVENTS_NAME
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Entry] = {}
        self._n_events = 0
        self._read_bytes = 0

    def write(self, kind: str, key: str, value: Any, version: int) -> Entry:
        """Change what a key holds.

        Args:
            kind: one of `KINDS`.
            key: what it is about.
            value: any JSON; None deletes it.
            version: the version that the change was made from; 0 if there was none.

        Raises:
            ConflictError: the key has another version by now.
            UserError: the change is none, or the file cannot be written.
        """
        content = _checked(kind, key, value)
        with self._lock, writing(self.folder, wait=True):
            self._catch_up()
            current = self._entries.get((kind, key), Entry(kind=kind, key=key, value=None, version=0))
            if current.version != version:
                raise ConflictError(current)
            if self._read_bytes + len(content) > MOST_BYTES:
                raise UserError(f"{printable(self.path, 4096)} is full: move it away to begin a new one.")
            event = {
                "kind": kind,
                "key": key,
                "value": value,
                "version": version + 1,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self._append(json.dumps(seal_object(event), ensure_ascii=True).encode() + b"\n")
            self._catch_up()
            return self._entries[kind, key]

    def merged(self) -> dict[str, Any]:
        """All that is written now: per kind a mapping of key to `value` and `version`; and the number of changes."""
        with self._lock:
            self._catch_up()
            entries, n_events = list(self._entries.values()), self._n_events
        found: dict[str, Any] = {"version": n_events, **{plural: {} for plural in KINDS.values()}}
        for entry in entries:
            if entry.value is not None:
                found[KINDS[entry.kind]][entry.key] = {"value": entry.value, "version": entry.version}
        return found

    def _append(self, line: bytes) -> None:
        """Write one line behind the last whole one; the folder is locked."""
        is_new = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(descriptor, self._read_bytes)
            written = 0
            while written < len(line):
                written += os.pwrite(descriptor, line[written:], self._read_bytes + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self.folder)

    def _catch_up(self) -> None:
        """Read the whole lines that were appended since; another process may have written them."""
        if not self.path.exists():
            return
        with os.fdopen(open_regular(self.path), "rb") as file:
            if os.fstat(file.fileno()).st_size < self._read_bytes:  # it was replaced
                self._entries, self._n_events, self._read_bytes = {}, 0, 0
            file.seek(self._read_bytes)
            data = file.read(MOST_BYTES)
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.splitlines():
            entry = _entry(line)
            self._n_events += 1
            if entry is None:
                log.warning("%s: line %d is damaged and left out.", self.path, self._n_events)
            else:
                self._entries[entry.kind, entry.key] = entry
        self._read_bytes += len(whole)


def _checked(kind: str, key: str, value: Any) -> bytes:
    if kind not in KINDS:
        raise UserError(f"{printable(kind, 40)!r} is no kind of note: it is one of {', '.join(KINDS)}.")
    if not key or len(key) > MOST_KEY:
        raise UserError(f"A key has from 1 to {MOST_KEY} characters.")
    try:
        content = json.dumps([key, value], allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise UserError("A note holds what JSON can hold: no infinite number, and nothing nested too deep.") from None
    if len(content) > MOST_VALUE_BYTES:
        raise UserError(f"A note has at most {MOST_VALUE_BYTES:,} bytes: shorten it.")
    return content


def _entry(line: bytes) -> Entry | None:
    try:
        content: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    fields = cast("Mapping[str, Any]", content)
    kind, key, version = fields.get("kind"), fields.get("key"), fields.get("version")
    if object_condition(dict(fields)) != "whole" or kind not in KINDS or not isinstance(key, str):
        return None
    return (
        Entry(kind=str(kind), key=key, value=fields.get("value"), version=version) if isinstance(version, int) else None
    )
