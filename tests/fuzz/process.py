"""One command in a process of its own: limited in time and memory, without root's rights, its output in files.

The processes are forked from a server that has imported everything once, so that one costs milliseconds. What happened
is in the exit status, and in `outcome.json` where Python had the last word.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing
import os
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

SPARE_BYTES = 3 * 2**30
"""Address space that a command may take beyond what the server has."""
LARGEST_FILE = 2**28
IDLE_SHARE = 0.4
"""Of the limit: a process that does nothing for so long waits for something that does not come."""
_OVERRIDE, _SEARCH, _OWNER = 1, 2, 3
"""Capabilities of Linux by which root reads, writes and lists what its mode forbids."""

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.fuzz.preloaded"])


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a command ended."""

    status: int | None
    """Exit status; None where it was ended from outside."""
    signal: int | None = None
    timed_out: bool = False
    error: str | None = None
    """Last line of a traceback, and where it comes from."""
    text: str = ""
    """What it wrote to standard output and error."""
    last_words: str = ""
    """Of a crash or a hang: the stack, as far as faulthandler saw it."""


def run(words: tuple[str, ...], folder: Path, limit_s: float) -> Ending:
    """Run a command in `folder/world`.

    Args:
        words: after `video-sae`.
        folder: where the bench is; the output lies in it afterwards.
        limit_s: seconds of a core that it may take.
    """
    return _forked(_command, (words, folder, limit_s), folder, limit_s)


def call(function: Callable[[Path], None], folder: Path, limit_s: float) -> Ending:
    """Call a function of the bench's folder in such a process, without limits of memory."""
    return _forked(_function, (function, folder), folder, limit_s)


def _forked(target: Callable[..., None], arguments: tuple[Any, ...], folder: Path, limit_s: float) -> Ending:
    outcome = folder / "outcome.json"
    outcome.unlink(missing_ok=True)
    process = context.Process(target=target, args=arguments)
    process.start()
    timed_out = _is_hanging(process, limit_s)
    if timed_out:
        process.kill()
        process.join()
    code = process.exitcode
    assert code is not None
    process.close()
    text, words = (_tail(folder / name) for name in ("output.txt", "faults.txt"))
    if code < 0:
        timed_out |= -code == 24  # SIGXCPU
        return Ending(status=None, signal=-code, timed_out=timed_out, text=text, last_words=words)
    found = json.loads(outcome.read_text()) if outcome.is_file() else {"status": code, "error": "no outcome"}
    return Ending(status=found["status"], error=found["error"], text=text, last_words=words)


def _is_hanging(process: BaseProcess, limit_s: float) -> bool:
    """Wait for the end of a process; True where it uses more of a core than it may, or nothing of it for long.

    The clock alone would call a process slow that shares its core with many.
    """
    used, since = 0.0, time.monotonic()
    while process.is_alive():
        process.join(0.25 if used else 0.05)
        now = _core_s(process.pid)
        if now > used:
            used, since = now, time.monotonic()
        if used > limit_s or time.monotonic() - since > IDLE_SHARE * limit_s:
            return process.is_alive()
    return False


def _core_s(pid: int | None) -> float:
    """Seconds of a core that a process has used; 0 where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _tail(path: Path, most: int = 2**20) -> str:
    data = path.read_bytes() if path.is_file() else b""
    return data[-most:].decode("utf-8", "backslashreplace")


def _command(words: tuple[str, ...], folder: Path, limit_s: float) -> None:
    from tests.fuzz.run_of_stages import mirror

    _redirect(folder)
    os.chdir(folder / "world")
    limit_cpu = int(2 * limit_s)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_cpu, limit_cpu + 5))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    _drop_overrides()
    served = mirror(folder / "published") if words[0] == "download" else contextlib.nullcontext()

    def called() -> int:
        from video_sae import main

        with served:
            return main([*words])

    _ended(folder, called)


def _function(function: Callable[[Path], None], folder: Path) -> None:
    _redirect(folder)
    _ended(folder, lambda: function(folder))


def _redirect(folder: Path) -> None:
    """Send what is written into files, and let the stack be written where Python cannot."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    faults = os.open(folder / "faults.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    faulthandler.enable(faults)
    faulthandler.register(24, faults, chain=True)  # SIGXCPU


def _ended(folder: Path, function: Callable[[], int | None]) -> None:
    error = None
    try:
        status: Any = function()
    except SystemExit as leave:
        status = leave.code
    except BaseException as raised:  # whatever it is, it is what the trial looks for
        status, error = 1, _last_line(raised)
        traceback.print_exc()
    (folder / "outcome.json").write_text(json.dumps({"status": 0 if status is None else status, "error": error}))
    os._exit(0)


def _last_line(error: BaseException) -> str:
    """The error and the places in the product that it came through, innermost last."""
    root = str(Path(__file__).parent.parent.parent) + os.sep
    places = [
        f"{frame.filename.removeprefix(root)}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(root) and f"tests{os.sep}" not in frame.filename
    ]
    words = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return f"{words[0][:300] if words else type(error).__name__} at {' > '.join(places[-2:])}"


def _drop_overrides() -> None:
    """Make file modes count for root as for everybody."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, of this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, sets) == 0:
        for number in (_OVERRIDE, _SEARCH, _OWNER):
            sets[0] &= ~(1 << number)
        libc.capset(header, sets)
