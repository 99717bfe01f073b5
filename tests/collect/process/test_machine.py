"""Numbers of workers from what a process may use."""

import os
from pathlib import Path

import pytest

from collect.process import machine
from collect.process.machine import default_workers, usable_cpus, usable_memory_bytes

GIB = 1024**3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 16 processors and 64 GiB free, and a process in the control group /job/step of it."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    texts = {Path("/proc/self/cgroup"): "0::/job/step\n", Path("/proc/meminfo"): f"MemAvailable: {64 * 1024**2} kB\n"}
    read = machine._text
    monkeypatch.setattr(machine, "_text", lambda path: texts.get(path) or read(path))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    (tmp_path / "job" / "step").mkdir(parents=True)
    return tmp_path


def test_without_limits_the_whole_machine_is_used(place: Path) -> None:
    (place / "job" / "cpu.max").write_text("max 100000\n")
    (place / "job" / "memory.max").write_text("max\n")
    assert (usable_cpus(), usable_memory_bytes()) == (16, 64 * GIB)


def test_the_tightest_limit_of_the_groups_counts(place: Path) -> None:
    (place / "job" / "cpu.max").write_text("300000 100000\n")
    (place / "job" / "step" / "cpu.max").write_text("700000 100000\n")
    assert usable_cpus() == 3
    (place / "job" / "memory.max").write_text(f"{8 * GIB}\n")
    (place / "job" / "memory.current").write_text(f"{5 * GIB}\n")
    (place / "job" / "memory.stat").write_text(f"anon 1\ninactive_file {GIB}\nactive_file 7\n")
    assert usable_memory_bytes() == 4 * GIB  # 8 - 5 + 1 that only caches files


def test_limits_of_the_first_version_of_control_groups_count_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = machine._text
    monkeypatch.setattr(
        machine, "_text", lambda path: "4:cpu:/box\n5:memory:/box\n" if path.name == "cgroup" else read(path)
    )
    (place / "cpu" / "box").mkdir(parents=True)
    (place / "cpu" / "box" / "cpu.cfs_quota_us").write_text("50000\n")
    (place / "cpu" / "box" / "cpu.cfs_period_us").write_text("100000\n")
    (place / "memory" / "box").mkdir(parents=True)
    (place / "memory" / "box" / "memory.limit_in_bytes").write_text(f"{2 * GIB}\n")
    (place / "memory" / "box" / "memory.usage_in_bytes").write_text(f"{GIB}\n")
    assert (usable_cpus(), usable_memory_bytes()) == (1, GIB)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("bytes_each", "n_tasks", "n_processes", "expected"),
    [
        (GIB, None, 1, 16),  # 32 would fit into half of the memory
        (4 * GIB, None, 1, 8),  # 64 / 2 / 4
        (100 * GIB, None, 1, 1),
        (GIB, 3, 1, 3),
        (GIB, 0, 1, 1),
        (GIB, None, 4, 4),  # 16 / 4
        (4 * GIB, None, 4, 2),  # 64 / 2 / 4 / 4
    ],
)
def test_workers_are_bounded_by_processors_memory_and_work(
    monkeypatch: pytest.MonkeyPatch, bytes_each: int, n_tasks: int | None, n_processes: int, expected: int
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(n_processes))
    assert default_workers(bytes_each, n_tasks) == expected


def test_this_machine_has_something() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
    assert usable_memory_bytes() > 0
