"""Ending on a signal as on Ctrl-C: the stage cleans up, a message says how to continue, and the exit status says why.

SIGTERM is what `kill`, batch systems, containers and `torchrun` send to end a process; SIGHUP comes when a terminal is
closed. Python raises in the main thread; stages wait there for their threads and processes, so that all of them end.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CLEAN_UP_S = 10.0
"""Further signals within this time are ignored, so that they do not cut off what the first one has begun to clean up.
Later ones count again, in case the first was lost where Python drops exceptions."""
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """The process has been asked to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = signal.Signals(number).name
        self.status = 128 + number
        """Exit status that shells know this by."""


@contextmanager
def interruptible() -> Generator[None]:
    """Within the block, signals that ask the process to end raise `Interrupted` in the main thread.

    A signal that is ignored, as SIGHUP under `nohup`, stays so. Afterwards signals do what they did before; but once
    one has come, the process is about to end, and another one ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came_at: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if not came_at or now - came_at[-1] > CLEAN_UP_S:
            came_at.append(now)
            raise Interrupted(number)

    before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}
    for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, _end if came_at else handler)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)
