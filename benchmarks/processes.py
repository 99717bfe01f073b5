"""Sides of a comparison that live in processes of their own, as their users would run them.

What one side does to its process, such as how it treats freed memory, does not reach the others, and an idle side waits
without taking a core.
"""

import multiprocessing
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from benchmarks.harness import PeakMemory, launch_seconds, seconds

Work = Callable[[], object]


class Side:
    """One side of a comparison; use it as a context manager.

    Args:
        prepare: makes the work of the side, in its process, from the arguments of `prepare`; importable by name.
        context: what the process runs in; importable by name.
    """

    def __init__(
        self, prepare: Callable[..., Work], context: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(theirs, prepare, context), daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, *arguments: object) -> None:
        """Make the work, and do it twice."""
        self._ask("prepare", arguments)

    def seconds(self, times: int = 1) -> float:
        """Wall seconds of doing the work once, or several times in a row, of which only the last is waited for."""
        return self._ask("seconds", (times,))

    def peak_mib(self, times: int) -> float:
        """Highest resident memory of the process while it does the work several times."""
        return self._ask("peak_mib", (times,))

    def launch_seconds(self, times: int) -> float:
        """Median time until the work returns, its GPU work not awaited: how long the host takes to launch it."""
        return self._ask("launch_seconds", (times,))

    def _ask(self, what: str, arguments: tuple[object, ...]) -> Any:
        self._pipe.send((what, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, prepare: Callable[..., Work], context: Callable[[], AbstractContextManager[Any]]) -> None:
    work: Work = _nothing
    with context():
        while True:
            try:
                what, arguments = pipe.recv()
            except EOFError:
                return
            try:
                answer = None
                if what == "prepare":
                    work = _nothing  # makes room
                    work = prepare(*arguments)
                    for _ in range(2):
                        work()
                elif what == "seconds":
                    answer = seconds(partial(_repeat, work, arguments[0]))
                elif what == "launch_seconds":
                    answer = launch_seconds(work, arguments[0])
                else:
                    with PeakMemory() as peak:
                        for _ in range(arguments[0]):
                            work()
                    answer = peak.mib
            except Exception as error:
                answer = error
            pipe.send(answer)


def _repeat(work: Work, times: int) -> None:
    for _ in range(times):
        work()


def _nothing() -> None:
    """Work that is not there yet."""
