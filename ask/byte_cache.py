"""A cache with a bound in bytes, for values that are costly to make and used once per target."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

MAX_BYTES = 2 * 1024**3


class ByteCache(Generic[V]):
    """Values by name, made when first asked for; the least recently used are dropped when the bound is exceeded."""

    def __init__(self, make: Callable[[str], V], size: Callable[[V], int], max_bytes: int = MAX_BYTES) -> None:
        """Start empty.

        Args:
            make: makes the value of a name; must give an equal value every time.
            size: bytes that a value holds.
            max_bytes: most bytes to keep; a single larger value is still returned, but not kept.
        """
        self._make = make
        self._size = size
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._values: OrderedDict[str, V] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        """Whether a value is kept."""
        return name in self._values

    def __getitem__(self, name: str) -> V:
        """Return the value of a name."""
        if name in self._values:
            self._values.move_to_end(name)
            return self._values[name]
        value = self._make(name)
        self._values[name] = value
        self._n_bytes += self._size(value)
        while self._n_bytes > self._max_bytes:
            _, oldest = self._values.popitem(last=False)
            self._n_bytes -= self._size(oldest)
        return value
