"""What all benchmarks share: options, clocks, memory, the machine's description, the table and the JSON file.

A benchmark is a module with a function `measure(options) -> {flat name: number}` that ends with

    if __name__ == "__main__":
        run_benchmark("loader", measure)

`python -m benchmarks.NAME [--json PATH] [--quick]` then prints a table and writes `{"name", "date", "machine",
"command", "metrics"}`. `python -m benchmarks.harness` makes `benchmarks/README.md` from the files in
`benchmarks/results`.
"""

import argparse
import datetime
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"

Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a benchmark is asked for."""

    quick: bool
    """Sizes that take seconds: a check that the benchmark works, whose numbers mean little."""
    large: bool = False
    """Sizes beyond the usual ones, for a benchmark that has them."""
    parts: Path | None = None
    """Folder with the results of single sizes, which are not measured again, for a benchmark that has large ones."""


def run_benchmark(
    name: str,
    measure: Callable[[Options], Metrics],
    arguments: Sequence[str] | None = None,
    *,
    large: str | None = None,
) -> dict[str, Any]:
    """Parse the options, measure, print the table, write the JSON file.

    Args:
        name: of the benchmark, as in `python -m benchmarks.NAME`.
        measure: returns numbers by flat name; figures to compare are ratios of sides measured in one run.
        arguments: the words after the module's name; those of this process where None.
        large: what `--large` does; there is no such option where None.

    Returns:
        What the JSON file holds.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write the numbers; nowhere by default")
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it works, not how fast it is")
    if large is not None:
        parser.add_argument("--large", action="store_true", help=large)
        parser.add_argument("--parts", type=Path, metavar="DIR", help="keep single sizes' results, and go on with them")
    words = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser.parse_args(words)
    options = Options(quick=parsed.quick)
    if large is not None:
        options = Options(quick=parsed.quick, large=parsed.large, parts=parsed.parts)
    metrics = {key: float(value) for key, value in measure(options).items()}
    assert all(math.isfinite(value) for value in metrics.values()), f"not finite: {metrics}"
    record = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        # Where the result goes does not change it, and a path may say more about a machine than it should.
        "command": f"python -m benchmarks.{name}{' --quick' * options.quick}{' --large' * options.large}",
        "metrics": metrics,
    }
    print(f"{record['command']}\n{record['machine']}\n{table(metrics)}")
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        parsed.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def kept_part(options: Options, name: str, measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """Measure one size, unless the folder of parts has it from this machine; what was measured is kept there."""
    path = None if options.parts is None else options.parts / f"{name}{'-quick' * options.quick}.json"
    if path is not None and path.exists():
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["machine"] != machine():
            raise SystemExit(f"{path} was measured on another machine ({record['machine']}): give another folder.")
        return record["metrics"]
    metrics = {key: float(value) for key, value in measure().items()}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        path.write_text(json.dumps({"date": date, "machine": machine(), "metrics": metrics}) + "\n", encoding="utf-8")
    return metrics


def table(metrics: Metrics) -> str:
    """Names and numbers in two aligned columns."""
    width = max(map(len, metrics), default=0)
    return "\n".join(f"  {name:<{width}}  {number(value)}" for name, value in metrics.items())


def number(value: float) -> str:
    """A number with four significant digits, or all digits before the point."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def machine() -> str:
    """Processor, cores that this process may use, threads of torch if it is loaded, memory and GPU."""
    parts = [_cpu_name(), f"{len(os.sched_getaffinity(0))} cores", f"{_memory_gib():.0f} GiB"]
    torch = sys.modules.get("torch")
    if torch is not None:
        parts.append(f"torch {torch.__version__} with {torch.get_num_threads()} threads")
        parts.append(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    parts.append(f"Python {platform.python_version()}")
    return ", ".join(parts)


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call, GPU work included; the garbage of earlier work is collected first."""
    gc.collect()
    _synchronize()
    begun = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - begun


def launch_seconds(work: Callable[[], object], times: int) -> float:
    """Median wall seconds until a call returns, while the GPU may still be at it.

    The GPU is idle before each call, so that no call waits for an earlier one's work.
    """
    took: list[float] = []
    for _ in range(times):
        _synchronize()
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    _synchronize()
    return statistics.median(took)


def alternate(sides: Mapping[str, Callable[[], object]], rounds: int, warmups: int = 1) -> dict[str, list[float]]:
    """Time several sides in turn, so that a change of the machine's load falls on all of them.

    Args:
        sides: name -> one run of that side.
        rounds: timed runs of each side.
        warmups: runs of each side before, which are not timed.

    Returns:
        Side -> wall seconds of its runs, in order: `medians` makes one number of each.
    """
    for _ in range(warmups):
        for work in sides.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            times[name].append(seconds(work))
    return times


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median of each side's times."""
    return {name: statistics.median(values) for name, values in times.items()}


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over rounds of one side's time over another's in the same round: robust to load that changes slowly."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


class PeakMemory:
    """Within the block, the highest resident memory of this process; `mib` afterwards. Linux only."""

    mib: float

    def __enter__(self) -> "PeakMemory":
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to what is resident now
        return self

    def __exit__(self, *_: object) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        (peak,) = (line for line in lines if line.startswith("VmHWM:"))
        self.mib = int(peak.split()[1]) / 1024


def readme(results: Path = RESULTS) -> str:
    """The page over all results: one table a benchmark, with its date, machine and command."""
    parts = [_README_HEAD]
    for path in sorted(results.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        rows = "\n".join(f"| `{name}` | {number(value)} |" for name, value in record["metrics"].items())
        about = f"{record['date']}, `{record['command']}`, {record['machine']}."
        parts.append(f"## {record['name']}\n\n{about}\n\n| metric | value |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


_README_HEAD = """\
# Benchmarks

`python -m benchmarks.NAME [--json PATH] [--quick]` runs one; `make bench` runs all and writes this page anew. Both
sides of every comparison are measured in one run, so only ratios may be compared between machines. Each module's
docstring defines its metrics.
"""


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _synchronize() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    (FOLDER / "README.md").write_text(readme(), encoding="utf-8")
