"""Two processes of one stage on one run, and a process that is told to end: every stage, in real processes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from collect.artefact.lock import LOCK_NAME
from tests.small_run import SAE_NAME, SITE
from tests.steer.stage_process import CONTEXT, finish, start, wait_for_lock

LEARNT = "learnt"
Arguments = Callable[[Path, Path, str], list[str]]

STAGES: dict[str, tuple[Arguments, str]] = {
    "collect": (
        lambda run, data, model: [
            *("--data", str(data), "--model", model, "--out", str(run), "--sites", SITE, "resid/1"),
            *("--frames", "2", "--device", "cpu", "--shard-rows", "256"),
        ],
        "activations",
    ),
    "train": (
        lambda run, _, __: [
            *("--run", str(run), "--site", SITE, "--name", LEARNT, "--arch", "topk", "--d-sae", "32", "--k", "4"),
            *("--batch-size", "64", "--epochs", "20", "--device", "cpu"),
        ],
        f"sae/{LEARNT}",
    ),
    "evaluate": (lambda run, _, __: ["--run", str(run), "--questions", "4", "--device", "cpu"], f"sae/{SAE_NAME}"),
    "features": (
        lambda run, _, __: [
            *("--run", str(run), "--min-videos", "1", "--permutations", "19", "--bootstraps", "9", "--controls", "2"),
            *("--media", "3", "--exemplars", "2", "--device", "cpu"),
        ],
        f"features/{SAE_NAME}",
    ),
    "profile": (
        lambda run, data, model: [
            *("--data", str(data), "--model", model, "--out", str(run), "--frames", "2", "--items", "6"),
            *("--device", "cpu"),
        ],
        "profile",
    ),
    "steer": (
        lambda run, _, __: [
            *("--run", str(run), "--top", "1", "--associated", "0", "--operations", "ablate"),
            *("--controls", "1", "--items", "4", "2", "--device", "cpu"),
        ],
        f"steer/{SAE_NAME}",
    ),
    "report": (lambda run, _, __: ["--run", str(run)], "report"),
    "archive": (lambda run, _, __: ["--run", str(run), "--at", str(run / "archive")], "archive"),
    "verify": (lambda run, _, __: ["--run", str(run), "--repair"], "activations"),
}
"""Arguments of each stage for a run, a data folder and a model; and the folder that it writes."""


class Bench:
    """Runs stages on copies of a tiny run."""

    def __init__(self, tmp_path: Path, collected: Path, data: Path, model: Path) -> None:
        self._tmp_path, self._collected, self._data, self._model = tmp_path, collected, data, model

    def run(self, stage: str, name: str) -> Path:
        """A run on which the stage has not run yet."""
        run = self._tmp_path / name / "run"
        if stage == "collect":
            run.mkdir(parents=True)
        else:
            shutil.copytree(self._collected, run)
        return run

    def words(self, stage: str, run: Path) -> list[str]:
        return [stage, *STAGES[stage][0](run, self._data, str(self._model))]

    def undisturbed(self, stage: str) -> dict[str, bytes]:
        run = self.run(stage, "undisturbed")
        log = run.parent / "log"
        assert finish(start(self.words(stage, run), log)) == 0, log.read_text()
        return contents(run, stage)


def contents(run: Path, stage: str) -> dict[str, bytes]:
    """What a stage has written; logs with speeds and paths of the run in config.json are left out."""
    folder = run / STAGES[stage][1]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in found if name.endswith((".lock", ".tmp", ".partial"))]
    for name in ("config.json", "metrics.jsonl"):
        found.pop(name, None)
    return found


@pytest.fixture
def bench(tmp_path: Path, collected: Path, data_folder: Path, model_folder: Path) -> Bench:
    return Bench(tmp_path, collected, data_folder, model_folder)


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_process_is_told_who_is_writing_and_disturbs_nothing(bench: Bench, stage: str) -> None:
    for trial in range(5):
        run = bench.run(stage, f"trial-{trial}")
        folder = run / STAGES[stage][1]
        first = start(bench.words(stage, run), run.parent / "first")
        if wait_for_lock(first, folder):
            assert first.pid is not None
            os.kill(first.pid, signal.SIGSTOP)
            if (folder / LOCK_NAME).exists():
                break
            os.kill(first.pid, signal.SIGCONT)
        assert finish(first) == 0
    else:
        pytest.fail("the stage was never caught at work")
    second = start(bench.words(stage, run), run.parent / "second")
    status, said = finish(second), (run.parent / "second").read_text()
    os.kill(first.pid, signal.SIGCONT)
    assert finish(first) == 0, (run.parent / "first").read_text()
    assert status == 2, said
    assert f"is being written by another process (`video-sae {stage} --" in said
    assert f"process {first.pid} on " in said
    assert "Traceback" not in said
    assert contents(run, stage) == bench.undisturbed(stage)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(3))
@pytest.mark.parametrize("stage", STAGES)
def test_of_two_that_start_together_one_wins_or_they_take_turns(bench: Bench, stage: str, trial: int) -> None:
    run = bench.run(stage, f"trial-{trial}")
    barrier = CONTEXT.Barrier(2)
    logs = [run.parent / name for name in ("first", "second")]
    statuses = [finish(process) for process in [start(bench.words(stage, run), log, barrier) for log in logs]]
    said = "\n".join(log.read_text() for log in logs)
    assert sorted(statuses) in ([0, 2], [0, 0]), said
    assert ("is being written by another process" in said) == (2 in statuses)
    assert "Traceback" not in said
    assert contents(run, stage) == bench.undisturbed(stage)


@pytest.mark.parametrize("stage", ["collect", "train", "features", "steer"])
def test_a_stage_that_is_told_to_end_leaves_a_clean_state_and_goes_on_from_there(bench: Bench, stage: str) -> None:
    run = bench.run(stage, "ended")
    folder, log = run / STAGES[stage][1], run.parent / "log"
    process = start(bench.words(stage, run), log)
    was_caught = wait_for_lock(process, folder)
    while was_caught and process.is_alive() and not (folder / "config.json").exists():
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    os.kill(process.pid, signal.SIGTERM)  # as an impatient user would
    status, said = finish(process), log.read_text()
    assert status in (0, 143), said
    assert ("interrupted by SIGTERM: run the same command again" in said) == (status == 143)
    assert "Traceback" not in said
    left = [path.name for path in run.rglob("*") if path.name.endswith((".lock", ".tmp"))]
    assert left == []
    assert finish(start(bench.words(stage, run), log)) == 0, log.read_text()
    assert contents(run, stage) == bench.undisturbed(stage)


def test_what_another_run_left_half_made_is_not_taken_for_finished(bench: Bench) -> None:
    run = bench.run("features", "changed")
    words = bench.words("features", run)
    log = run.parent / "log"
    assert finish(start(words, log)) == 0, log.read_text()
    before = contents(run, "features")
    folder = run / STAGES["features"][1]
    (folder / "catalogue.parquet").write_bytes(before["associations.parquet"])
    next(folder.rglob("codes.zarr/values/c/*")).unlink()
    assert finish(start(words, log)) == 0, log.read_text()
    assert contents(run, "features") == before
    assert "is not as it was when it was finished" in log.read_text()
    assert json.loads((folder / "summary.json").read_text())["files"]["codes.zarr"]["n_files"] > 3
