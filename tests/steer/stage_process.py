"""A command of the command line in a process of its own, started quickly: the modules are loaded once, then forked."""

import importlib
import multiprocessing
import os
import sys
import time
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import video_sae
from collect.artefact.lock import LOCK_NAME

# The server of forks loads this module before it forks, and with it the stages.
for command in video_sae.COMMANDS:
    for reference in (command.config, command.function):
        importlib.import_module(reference.partition(":")[0])

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def start(arguments: list[str], log: Path, barrier: Barrier | None = None) -> ForkServerProcess:
    """Start a command; what it prints goes to the log."""
    process = CONTEXT.Process(target=_run, args=(arguments, log, barrier))
    process.start()
    return process


def finish(process: ForkServerProcess) -> int:
    """Wait for a command and return its exit status."""
    process.join(900)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode


def wait_for_lock(process: ForkServerProcess, folder: Path) -> bool:
    """Wait until a command holds a folder; False if it has ended before that was seen."""
    while process.is_alive():
        if (folder / LOCK_NAME).exists() and (folder / LOCK_NAME).stat().st_size:
            return True
        time.sleep(0.001)
    return False


def _run(arguments: list[str], log: Path, barrier: Barrier | None) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["video-sae", *arguments]
    if barrier is not None:
        barrier.wait()
    sys.exit(video_sae.main(arguments))
