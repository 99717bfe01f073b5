"""Crashes: whatever was interrupted where, the finished store is the one that an uninterrupted run writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.errors import UserError
from collect.reading import ActivationStore
from collect.store import shards
from collect.store.manifest import write_manifest
from collect.store.writer import StoreWriter
from tests.collect.store_files import SITES, contents, fill, open_writer, write_store

LENGTHS = (3, 0, 7, 1, 5, 0, 4, 2)  # 66 tokens: four shards of 16 rows and a rest of 2


class Crash(BaseException):
    """Stands for the end of the process; no handler of ours may catch it."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(write_store(tmp_path_factory.mktemp("whole") / "activations", LENGTHS))


def finish(folder: Path) -> dict[str, bytes]:
    with open_writer(folder) as writer:
        fill(writer, LENGTHS)
        writer.finish()
        write_manifest(folder, [0])
    return contents(folder)


def crash_after(folder: Path, n_steps: int) -> bool:
    """Write until the `n_steps`-th write, fsync or rename, then stop dead; False where there are fewer steps."""
    left = n_steps

    def step() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Crash

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "write"), (os, "fsync"), (Path, "replace")):
            original = getattr(module, name)
            patch.setattr(module, name, lambda *a, original=original: (step(), original(*a))[1])
        try:
            write_store(folder, LENGTHS)
        except Crash:
            return True
    return False


def test_a_crash_at_every_step_loses_nothing(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    n_steps = 0
    while crash_after(tmp_path / str(n_steps), n_steps):
        assert finish(tmp_path / str(n_steps)) == uninterrupted, f"after {n_steps} steps"
        n_steps += 13  # of some hundreds: enough to meet each kind of step in each shard
    assert n_steps > 100


@settings(max_examples=15, deadline=None)
@given(stops=st.lists(st.integers(min_value=0, max_value=len(LENGTHS)), max_size=4))
def test_any_number_of_interruptions(
    stops: list[int], tmp_path_factory: pytest.TempPathFactory, uninterrupted: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("stops") / "activations"
    for stop in stops:
        with open_writer(folder) as writer:
            fill(writer, LENGTHS[:stop])
    assert finish(folder) == uninterrupted


KILLED = """
import sys, time
from pathlib import Path
from tests.collect.store_files import fill, open_writer
from tests.collect.store.test_writer import LENGTHS
with open_writer(Path(sys.argv[1])) as writer:
    for stop in range(len(LENGTHS) + 1):
        fill(writer, LENGTHS[:stop])
        time.sleep(0.02)
    writer.finish()
    time.sleep(60)
"""


def test_kill_9(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = tmp_path / "activations"
    log = folder / "rank-0.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not log.exists() or log.read_bytes().count(b"\n") < 3:
            assert time.monotonic() < deadline, "the writer did not get so far"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert finish(folder) == uninterrupted


def test_a_torn_last_line_counts_as_never_written(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    folder = write_store(tmp_path / "activations", LENGTHS)
    log = folder / "rank-0.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:3]) + lines[3][: len(lines[3]) // 2])
    assert finish(folder) == uninterrupted


def test_orphans_of_a_crash_are_swept(tmp_path: Path) -> None:
    folder = tmp_path / "activations"
    with open_writer(folder) as writer:
        fill(writer, LENGTHS[:4])
    orphan = folder / "rank-0.zarr" / "projector" / "c" / "2" / f"0{shards.PARTIAL_SUFFIX}"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"half a shard")
    open_writer(folder).close()
    assert not orphan.exists()


def test_a_resumed_writer_tells_where_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "activations"
    with open_writer(folder) as writer:
        fill(writer, LENGTHS[:3])  # 9 + 21 = 30 tokens: one shard, in the middle of video 2
    with open_writer(folder) as writer:
        assert (writer.n_committed, writer.next_video, writer.next_row) == (16, 2, 9)
        assert [failure.index for failure in writer.failures] == [1]
        assert not writer.is_finished


def test_a_finished_writer_says_so(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "activations", LENGTHS)
    before = contents(folder)
    with open_writer(folder) as writer:
        assert writer.is_finished
        assert writer.next_video == len(LENGTHS)
        writer.finish()
    assert contents(folder) == before


def test_two_processes_on_one_rank(tmp_path: Path) -> None:
    folder = tmp_path / "activations"
    with open_writer(folder), pytest.raises(UserError, match="is being written by another process"):
        open_writer(folder)
    open_writer(folder).close()  # the lock is free again


def test_other_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_store(tmp_path / "activations", LENGTHS)
    before = contents(folder)
    with pytest.raises(UserError, match=r"shard_rows = 16 \(now 32\)"):
        StoreWriter(folder, 0, SITES, 200, 32, 4)
    assert contents(folder) == before


def test_a_full_disk_ends_the_run_and_a_rerun_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, bytes]
) -> None:
    folder = tmp_path / "activations"
    written = 0
    write = os.write

    def limited(descriptor: int, data: memoryview) -> int:
        nonlocal written
        written += len(data)
        if written > 4000:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", limited)
        with pytest.raises(OSError, match="No space left"):
            write_store(folder, LENGTHS)
    assert finish(folder) == uninterrupted


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(min_value=0, max_value=9), min_size=1, max_size=8).filter(any))
def test_rows_and_videos_survive_for_any_lengths(lengths: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ActivationStore.open(write_store(tmp_path_factory.mktemp("lengths") / "activations", lengths))
    assert [v.grid.n_t for v in store.videos] == [n for n in lengths if n]
    assert store.n_tokens == 3 * sum(lengths) == len(store.read("projector", 0, store.n_tokens))
    assert len(store.failures) == lengths.count(0)
