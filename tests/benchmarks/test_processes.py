"""Sides of a comparison in processes of their own."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.processes import Side


def write_pid(path: Path) -> Callable[[], object]:
    return lambda: path.open("a").write(f"{os.environ.get('SIDE', 'plain')} {os.getpid()}\n")


@contextmanager
def named() -> Generator[None]:
    os.environ["SIDE"] = "named"
    yield
    del os.environ["SIDE"]


def refuse() -> Callable[[], object]:
    raise ValueError("no such work")


def test_a_side_works_in_its_own_process_and_context(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain", tmp_path / "named"
    with Side(write_pid) as first, Side(write_pid, named) as second:
        first.prepare(plain)
        second.prepare(other)
        assert first.seconds() > 0
        assert first.launch_seconds(3) > 0
        assert second.peak_mib(2) > 1
    # Twice when it is prepared, then once to be timed and three times until launched, or twice for the memory.
    assert [line.split()[0] for line in plain.read_text().splitlines()] == ["plain"] * 6
    assert [line.split()[0] for line in other.read_text().splitlines()] == ["named"] * 4
    pids = {line.split()[1] for path in (plain, other) for line in path.read_text().splitlines()}
    assert len(pids - {str(os.getpid())}) == 2


def test_what_goes_wrong_in_a_side_is_raised_here() -> None:
    with Side(refuse) as side, pytest.raises(ValueError, match="no such work"):
        side.prepare()
