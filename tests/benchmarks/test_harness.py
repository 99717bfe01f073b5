import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import (
    Metrics,
    Options,
    PeakMemory,
    alternate,
    kept_part,
    median_ratio,
    medians,
    number,
    readme,
    run_benchmark,
)


def test_the_json_file_holds_what_was_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[bool] = []

    def measure(options: Options) -> dict[str, float]:
        asked.append(options.quick)
        return {"a_over_b": 1.25, "tokens_per_s": 12345.6}

    path = tmp_path / "new" / "x.json"
    run_benchmark("x", measure, ["--quick", "--json", str(path)])
    record = json.loads(path.read_text())
    assert asked == [True]
    assert list(record) == ["name", "date", "machine", "command", "metrics"]
    assert (record["name"], record["command"]) == ("x", "python -m benchmarks.x --quick")
    assert record["metrics"] == {"a_over_b": 1.25, "tokens_per_s": 12345.6}
    assert str(tmp_path) not in path.read_text()
    printed = capsys.readouterr().out.splitlines()
    assert printed[2:] == ["  a_over_b      1.25", "  tokens_per_s  12,346"]


def test_a_number_that_is_not_finite_is_no_measurement() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        run_benchmark("x", lambda _: {"a": float("nan")}, [])


def test_sides_are_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    clock = iter([0.0, 2.0, 10.0, 14.0, 20.0, 23.0, 30.0, 36.0])  # a: 2 and 3 seconds, b: 4 and 6
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(clock))
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert times == {"a": [2.0, 3.0], "b": [4.0, 6.0]}
    assert medians(times) == {"a": 2.5, "b": 5.0}
    assert median_ratio(times["b"], times["a"]) == 2.0


def test_peak_memory_sees_what_was_freed_again() -> None:
    with PeakMemory() as before:
        pass
    with PeakMemory() as memory:
        np.ones(64 * 2**20, dtype=np.uint8)
    assert 48 < memory.mib - before.mib < 200
    with PeakMemory() as after:
        pass
    assert after.mib < memory.mib - 32


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1234567.8, "1,234,568"), (0.123456, "0.1235"), (12.0, "12")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_the_page_has_a_table_a_benchmark(tmp_path: Path) -> None:
    for name in ("b", "a"):
        run_benchmark(name, lambda _: {"ratio": 0.5}, ["--json", str(tmp_path / f"{name}.json")])
    page = readme(tmp_path)
    assert page.index("## a") < page.index("## b")
    assert page.count("| `ratio` | 0.5 |") == 2


def test_a_part_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def measure() -> Metrics:
        measured.append(1)
        return {"seconds": 0.1 + 0.2}

    options = Options(quick=False, parts=tmp_path / "parts")
    assert kept_part(options, "half", measure) == kept_part(options, "half", measure) == {"seconds": 0.1 + 0.2}
    assert len(measured) == 1
    kept_part(replace(options, quick=True), "half", measure)  # small sizes are others
    kept_part(Options(quick=False), "half", measure)
    assert len(measured) == 3
    monkeypatch.setattr(harness, "machine", lambda: "another")
    with pytest.raises(SystemExit, match="another machine"):
        kept_part(options, "half", measure)
