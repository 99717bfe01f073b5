"""A process that is killed, hangs, raises or takes too much is seen as what it does."""

import ctypes
import os
import time
from pathlib import Path

import pytest

from tests.fuzz import process


def crash(_: Path) -> None:
    ctypes.string_at(0)


def hang(_: Path) -> None:
    time.sleep(600)


def fail(_: Path) -> None:
    raise KeyError("nothing of that name")


def read_forbidden(folder: Path) -> None:
    path = folder / "forbidden.txt"
    path.write_text("text")
    path.chmod(0)
    process._drop_overrides()
    with pytest.raises(PermissionError):
        path.read_text()


def test_a_crash_is_a_signal_and_leaves_its_stack(tmp_path: Path) -> None:
    ending = process.call(crash, tmp_path, 60.0)
    assert (ending.status, ending.signal, ending.timed_out) == (None, 11, False)
    assert "in crash" in ending.last_words


def test_a_hang_is_ended(tmp_path: Path) -> None:
    ending = process.call(hang, tmp_path, 1.0)
    assert ending.timed_out
    assert ending.status is None


def test_an_exception_is_told_with_its_last_line(tmp_path: Path) -> None:
    ending = process.call(fail, tmp_path, 60.0)
    assert ending.status == 1
    assert ending.error is not None
    assert ending.error.startswith("KeyError: 'nothing of that name'")


@pytest.mark.skipif(os.geteuid() != 0, reason="is about root")
def test_modes_count_for_root_too(tmp_path: Path) -> None:
    assert process.call(read_forbidden, tmp_path, 60.0).error is None
