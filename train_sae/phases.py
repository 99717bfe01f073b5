"""Where the time of a training goes: seconds in the loader, the steps, the log and the checkpoints."""

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

PHASES = ("loader", "step", "log", "checkpoint")
T = TypeVar("T")


class Phases:
    """Wall seconds of this process in each phase so far.

    A GPU keeps working while the host continues: its remaining work is counted where the host waits for it, which is in
    `log` and `checkpoint`, and in `step` where the host is too far ahead. Checkpoints of a GPU's state are written
    beside all this; `checkpoint` counts the copy, and the wait for the one before.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self.began = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Generator[None]:
        """Count the seconds within the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - began

    def timed(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items and count the seconds spent waiting for them."""
        remaining = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(remaining)
            except StopIteration:
                return
            finally:
                self.seconds[phase] += time.perf_counter() - began
            yield item
