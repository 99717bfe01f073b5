"""Where shards come from: a run, as it is now, or a folder of finished ones."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar, runtime_checkable

from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, fingerprint
from browse.names import is_shard_name
from browse.shards import Shard, decode, encode
from collect.artefact.inside import inside
from collect.errors import UserError

log = logging.getLogger(__name__)

Value = TypeVar("Value")

MOST_CACHED_BYTES = 512 << 20
"""Of encoded shards that are kept."""
MOST_DECODED = 256
"""Shards that are kept as tables, for the endpoints that look into them."""
CHECK_EVERY_S = 2.0
"""How often a run is looked at for stages that have begun or finished since."""


@runtime_checkable
class Source(Protocol):
    """Gives shards by name."""

    @property
    def version(self) -> int:
        """Another number after the shards have changed."""
        ...

    def shard(self, name: str) -> Shard | None:
        """A shard; None if there is none of that name."""
        ...

    def encoded(self, name: str) -> bytes | None:
        """The same as the content of its file."""
        ...

    def holds(self, name: str) -> bool:
        """Whether a shard is at hand, so that giving it takes no time."""
        ...

    def holds_encoded(self, name: str) -> bool:
        """The same of the content of its file."""
        ...


class _Cache(Generic[Value]):
    """The values that were used last, up to a total size; each is made once, however many threads ask for it."""

    def __init__(self, most: int, size: Callable[[Value], int]) -> None:
        self._most, self._size = most, size
        self._held: OrderedDict[str, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}

    def holds(self, key: str) -> bool:
        """Whether a value is held."""
        return key in self._held

    def get(self, key: str, make: Callable[[], Value | None]) -> Value | None:
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if key in self._held:
                    return self._held[key]
            value = make()
            with self._lock:
                self._making.pop(key, None)
                if value is not None:
                    self._held[key] = value
                    self._total += self._size(value)
                    while self._total > self._most and len(self._held) > 1:
                        _, dropped = self._held.popitem(last=False)
                        self._total -= self._size(dropped)
            return value

    @property
    def is_nearly_full(self) -> bool:
        with self._lock:
            return self._total > self._most // 2

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._total = 0


class _Caching:
    """What both sources share."""

    def __init__(self) -> None:
        self._bytes: _Cache[bytes] = _Cache(MOST_CACHED_BYTES, len)
        self._shards: _Cache[Shard] = _Cache(MOST_DECODED, lambda _: 1)

    def holds(self, name: str) -> bool:
        """Whether a shard is at hand, so that giving it takes no time."""
        return self._shards.holds(name)

    def holds_encoded(self, name: str) -> bool:
        """The same of the content of its file."""
        return self._bytes.holds(name)


class RunSource(_Caching):
    """The shards of a run, made when they are asked for, and made again once a stage has gone on.

    Args:
        folder: the run.
        sae: name of the only SAE to show; all of them if None.
        data: folder of videos and annotations; where the run had them if None.
    """

    def __init__(self, folder: Path, sae: str | None = None, data: Path | None = None) -> None:
        super().__init__()
        self._open = lambda: Library(OpenedRun(folder, sae, data))
        self._folder = folder
        self._library = self._open()
        self._version = 0
        self._checked = time.monotonic()
        self._lock = threading.Lock()
        self._n_asking = 0

    def prepare(self, stopped: threading.Event) -> None:
        """Make the shards that are wanted first, until all are made, the cache is full, or it is stopped.

        Args:
            stopped: set when nobody needs them any more.
        """
        library = self.library
        try:
            for name in library.wanted_first():
                while self._n_asking and not stopped.is_set():
                    stopped.wait(0.05)  # somebody is waiting for a shard: that one comes first
                if stopped.is_set() or library is not self.library or self._bytes.is_nearly_full:
                    return
                self._encoded(library, name)
        except UserError as error:
            log.warning("%s", error)

    @property
    def library(self) -> Library:
        """The run as it is now."""
        with self._lock:
            if time.monotonic() - self._checked > CHECK_EVERY_S:
                self._checked = time.monotonic()
                if fingerprint(self._folder) != self._library.run.fingerprint:
                    self._library = self._open()
                    self._version += 1
                    self._bytes.clear()
                    self._shards.clear()
            return self._library

    @property
    def version(self) -> int:
        """Another number after the run has changed."""
        assert self.library
        return self._version

    def shard(self, name: str) -> Shard | None:
        """A shard; None if there is none of that name. One that cannot be made says why in its `meta.error`."""
        library = self.library
        return self._shards.get(name, lambda: _made(library, name)) if is_shard_name(name) else None

    def encoded(self, name: str) -> bytes | None:
        """The same as the content of its file."""
        if not is_shard_name(name):
            return None
        with self._lock:
            self._n_asking += 1
        try:
            return self._encoded(self.library, name)
        finally:
            with self._lock:
                self._n_asking -= 1

    def _encoded(self, library: Library, name: str) -> bytes | None:
        def make() -> bytes | None:
            shard = _made(library, name)
            return None if shard is None else encode(name, shard)

        return self._bytes.get(name, make)


def _made(library: Library, name: str) -> Shard | None:
    try:
        return library.shard(name)
    except UserError as error:
        return Shard(meta={"error": str(error)})


class FolderSource(_Caching):
    """The shards of an export.

    Args:
        folder: its `shards/`.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    @property
    def version(self) -> int:
        """They do not change."""
        return 0

    def shard(self, name: str) -> Shard | None:
        """A shard; None if there is none of that name."""

        def make() -> Shard | None:
            data = self.encoded(name)
            return None if data is None else decode(data)[1]

        return self._shards.get(name, make)

    def encoded(self, name: str) -> bytes | None:
        """The same as the content of its file."""

        def make() -> bytes | None:
            path = inside(self._folder, f"{name}.js")
            return path.read_bytes() if path.is_file() else None

        return self._bytes.get(name, make) if is_shard_name(name) else None
