"""What this process may use of its machine: processors and memory, within the limits that its container or job has.

Defaults for numbers of workers come from here. Their number changes how long something takes, but never a result.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMORY_SHARE = 0.5
"""Share of the free memory that workers may take; the rest is the model's and the disk cache's."""


def default_workers(bytes_each: int, n_tasks: int | None = None) -> int:
    """How many workers to start if the user has not said.

    Args:
        bytes_each: memory that one of them needs.
        n_tasks: the number of tasks; more workers than this would have nothing to do.
    """
    n_processes = _positive(os.environ.get("LOCAL_WORLD_SIZE")) or 1  # of torchrun, which share the machine
    by_memory = int(_MEMORY_SHARE * usable_memory_bytes() / n_processes / max(1, bytes_each))
    by_cpus = usable_cpus() // n_processes
    return max(1, min(by_cpus, by_memory, by_cpus if n_tasks is None else n_tasks))


def usable_cpus() -> int:
    """Processors that this process may run on, but no more than its control group may keep busy."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on; it heeds PYTHON_CPU_COUNT
    found = count() if count is not None else None
    if found is None:
        affinity = getattr(os, "sched_getaffinity", None)
        found = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = [quota for folder in _own_cgroups() if (quota := _cpu_quota(folder)) is not None]
    return max(1, min(found, *(round(quota) for quota in quotas)) if quotas else found)


def usable_memory_bytes() -> int:
    """Free memory, but no more than the process's control group has left."""
    lines = _text(Path("/proc/meminfo")).splitlines()
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    left = [bytes_left for folder in _own_cgroups() if (bytes_left := _memory_left(folder)) is not None]
    return min([*available, *left], default=4 * 1024**3)


def _own_cgroups() -> Iterator[Path]:
    """Folders of the control groups that this process is in, each with those that contain it."""
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        for root in [_CGROUPS] if not controllers else [_CGROUPS / name for name in ("cpu", "cpu,cpuacct", "memory")]:
            place = root / path.lstrip("/")
            for folder in (place, *place.parents):
                if folder.is_relative_to(root) and folder.is_dir():
                    yield folder


def _cpu_quota(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not quota:  # version 1 of control groups
        quota, period = (_text(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    n_quota, n_period = _positive(quota), _positive(period)
    return n_quota / n_period if n_quota and n_period else None


def _memory_left(folder: Path) -> int | None:
    most = _positive(_text(folder / "memory.max")) or _positive(_text(folder / "memory.limit_in_bytes"))
    used = _positive(_text(folder / "memory.current")) or _positive(_text(folder / "memory.usage_in_bytes"))
    if most is None or used is None:
        return None
    lines = _text(folder / "memory.stat").splitlines()
    cached = sum(_positive(line.split()[1]) or 0 for line in lines if line.startswith("inactive_file "))
    return max(0, most - used + cached)


def _positive(text: str | None) -> int | None:
    """A number from 1 on; None for anything else, such as `max`."""
    word = (text or "").strip()
    return int(word) if word.isdecimal() and int(word) > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
