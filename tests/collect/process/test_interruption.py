"""Ending on a signal, in real processes."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from collect.process.interruption import Interrupted, interruptible

WAITING = """
import signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import video_sae
from tests.test_video_sae import FakeConfig

def stage(config):
    pool = ThreadPoolExecutor(1)
    try:
        print("begun", flush=True)
        pool.submit(time.sleep, 0.3).result()
        time.sleep(60)
    finally:
        pool.shutdown()
        for _ in range(30):
            time.sleep(0.01)
        print("clean", flush=True)

video_sae._parse = lambda _: (video_sae.COMMANDS[0], FakeConfig())
video_sae._resolve = lambda _: stage
sys.exit(video_sae.main(["demo"]))
"""


@pytest.mark.parametrize(
    ("signals", "status", "words"),
    [
        ([signal.SIGTERM], 143, "interrupted by SIGTERM: run the same command again to go on from here."),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGINT], 143, "interrupted by SIGTERM"),
        ([signal.SIGINT], 130, "interrupted by SIGINT"),
        ([signal.SIGHUP], 129, "interrupted by SIGHUP"),
    ],
    ids=["SIGTERM", "several", "SIGINT", "SIGHUP"],
)
def test_a_signal_ends_a_stage_after_its_cleanup(signals: list[signal.Signals], status: int, words: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)  # Python handles those that come together in the order of their numbers
    said, complaint = process.communicate(timeout=60)
    assert (said, process.returncode) == ("clean\n", status)
    assert words in complaint
    assert "Traceback" not in complaint


def test_what_is_ignored_stays_ignored_and_handlers_are_put_back() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminate = signal.getsignal(signal.SIGTERM)
        with interruptible():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is not terminate
        assert signal.getsignal(signal.SIGTERM) is terminate
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_signals_are_left_alone() -> None:
    found: list[bool] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with interruptible():
            found.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]


def test_the_status_is_the_one_that_shells_know() -> None:
    assert (Interrupted(signal.SIGTERM).status, Interrupted(signal.SIGTERM).name) == (143, "SIGTERM")
