"""Many processes on one store: real ones through torchrun, and ones played one after the other in this process."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from collect import run
from collect.config import CollectConfig
from collect.errors import UserError
from collect.process import ranks
from collect.process.ranks import Process
from collect.reading import ActivationStore
from collect.run import collect
from collect.store.writer import StoreWriter
from collect.vlm import VideoVlm

IDS = [f"v{i:02d}" for i in range(11) if i != 3]


@pytest.fixture
def config(clips: Path, tiny_vlm: Path, tmp_path: Path) -> CollectConfig:
    return CollectConfig(
        data=clips,
        model=str(tiny_vlm),
        out=tmp_path / "run",
        sites=("resid/1",),
        frames="8",
        batch_size=2,
        device="cpu",
        shard_rows=256,
    )


class Job:
    """Processes of one job, played one after the other; what the first one decides is what all of them do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world_size: int) -> None:
        self._monkeypatch, self._world_size = monkeypatch, world_size
        self._decided: Any = None

    def run(self, rank: int, config: CollectConfig) -> None:
        def agree(process: Process, decide: Callable[[], Any]) -> Any:
            if process.rank == 0:
                self._decided = json.loads(json.dumps(decide()))
            return self._decided

        with self._monkeypatch.context() as patch:
            patch.setattr(Process, "agree", agree)
            patch.setenv("RANK", str(rank))
            patch.setenv("WORLD_SIZE", str(self._world_size))
            collect(config)


def die_after(monkeypatch: pytest.MonkeyPatch, n_videos: int) -> pytest.MonkeyPatch:
    """Let the process end when it is to store one more video than these."""
    add_video = StoreWriter.add_video
    left = n_videos

    def dying(self: StoreWriter, *args: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise SystemExit("killed")
        add_video(self, *args)

    monkeypatch.setattr(StoreWriter, "add_video", dying)
    return monkeypatch


def rows(store: ActivationStore) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for video in store.videos:
        assert video.video_id not in found, "no token twice"
        found[video.video_id] = store.read("resid/1", video.row_start, video.row_stop)
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_make_one_store(config: CollectConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = rows(ActivationStore.open(collect(replace(config, out=tmp_path / "whole"))))
    job = Job(monkeypatch, 2)
    job.run(0, config)
    with pytest.raises(UserError, match="is not finished"):
        ActivationStore.open(config.out / "activations")
    job.run(1, config)
    store = ActivationStore.open(config.out / "activations")
    assert sorted(whole) == IDS
    assert same(rows(store), whole)
    manifest = json.loads((store.folder / "manifest.json").read_text())
    assert [rank["zarr"] for rank in manifest["ranks"]] == ["rank-0.zarr", "rank-1.zarr"]
    assert all(rank["n_tokens"] for rank in manifest["ranks"])
    assert manifest["n_tokens"] == sum(rank["n_tokens"] for rank in manifest["ranks"]) == 10 * 128
    coords = store.coords(0, store.n_tokens)
    for i, video in enumerate(store.videos):
        assert video.index == i
        assert (coords[video.row_start : video.row_stop, 0] == i).all()
    moments = store.moments("resid/1")
    assert moments.n == store.n_tokens
    assert torch.allclose(
        torch.from_numpy(moments.mean).float(), store.read("resid/1", 0, store.n_tokens).mean(dim=0), atol=1e-5
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_another_world_completes_what_a_dead_rank_left(
    config: CollectConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, world_size: int
) -> None:
    whole = rows(ActivationStore.open(collect(replace(config, out=tmp_path / "whole"))))
    job = Job(monkeypatch, 2)
    with monkeypatch.context() as patch:
        die_after(patch, 3)  # three videos of 128 tokens: one shard of 256 is committed
        with pytest.raises(SystemExit):
            job.run(0, config)
    job.run(1, config)
    logs = [config.out / "activations" / f"rank-{rank}.jsonl" for rank in (0, 1)]
    left = [line for line in logs[0].read_text().splitlines()[1:] if json.loads(line)["videos"]]
    assert len(left) == 1
    before = logs[1].read_bytes()

    passes: list[int] = []
    residuals = VideoVlm.visual_residuals

    def counted(self: VideoVlm, prefixes: list, sites: tuple[str, ...]) -> dict[str, torch.Tensor]:
        passes.append(len(prefixes))
        return residuals(self, prefixes, sites)

    monkeypatch.setattr(VideoVlm, "visual_residuals", counted)
    again = Job(monkeypatch, world_size)
    for rank in range(world_size):
        again.run(rank, config)
    store = ActivationStore.open(config.out / "activations")
    assert same(rows(store), whole)
    assert logs[1].read_bytes() == before, "what the other rank had done is untouched"
    n_left = 10 - sum(len(json.loads(line)["videos"]) for line in (*left, *before.splitlines()[1:]))
    assert n_left <= sum(passes) <= n_left + config.batch_size  # at most the batch that was cut is computed again


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Process.of_environment() == Process()
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert Process.of_environment() == Process(rank=5, world_size=8, local_rank=1)
    for name, value in (("RANK", "8"), ("RANK", "x"), ("LOCAL_RANK", "-1")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(UserError, match=rf"do not fit together \(.*{name}={value}"):
                Process.of_environment()


def test_a_job_of_another_size_is_kept_out(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def second(*_: object, **__: object) -> None:
        Job(monkeypatch, 3).run(0, config)

    monkeypatch.setattr(run, "_work", second)
    with pytest.raises(UserError, match="is being written by another process"):
        Job(monkeypatch, 2).run(0, config)


def test_a_job_waits_for_the_last_rank_of_another(config: CollectConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process of a job, which holds the job's lock, may end before the others."""
    Job(monkeypatch, 2).run(0, config)
    descriptor = os.open(config.out / "activations" / "rank-1.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(UserError, match="is being written by another process"):
            Job(monkeypatch, 3).run(0, config)
    finally:
        os.close(descriptor)
    assert json.loads((config.out / "activations" / "plan.json").read_text())["generations"][-1]["world_size"] == 2


def torchrun(config: CollectConfig, n: int) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)),
        *("-m", "video_sae", "--", "collect", "--data", str(config.data), "--model", config.model),
        *("--out", str(config.out), "--sites", "resid/1", "--frames", "8", "--batch-size", "2"),
        *("--device", "cpu", "--shard-rows", "256"),
    ]


def test_torchrun(config: CollectConfig, tmp_path: Path) -> None:
    done = subprocess.run(torchrun(config, 2), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    store = ActivationStore.open(config.out / "activations")
    assert same(rows(store), rows(ActivationStore.open(collect(replace(config, out=tmp_path / "whole")))))
    assert len(list(store.folder.glob("rank-*.zarr"))) == 2


def many(config: CollectConfig, data: Path, clips: Path) -> CollectConfig:
    """The same, for many videos."""
    data.mkdir()
    for i in range(1200):
        (data / f"w{i:03d}.mp4").symlink_to(clips / "videos" / f"v{i % 3:02d}.mp4")
    return replace(config, data=data)


def wait_for_commits(log: Path) -> None:
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < 3:
        assert time.monotonic() < deadline, "the run did not get so far"
        time.sleep(0.002)


@pytest.mark.slow
def test_torchrun_that_is_told_to_end(config: CollectConfig, tmp_path: Path, clips: Path) -> None:
    config = many(config, tmp_path / "many", clips)
    folder = config.out / "activations"
    process = subprocess.Popen(torchrun(config, 2), stderr=subprocess.PIPE, text=True)
    wait_for_commits(folder / "rank-1.jsonl")
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert said.count("interrupted by SIGTERM: run the same command again") == 2, said  # by each of its processes
    assert not [path for path in folder.iterdir() if path.name.endswith((".lock", ".tmp"))]
    assert not (folder / "manifest.json").exists()


@pytest.mark.slow
def test_torchrun_after_the_death_of_a_rank(config: CollectConfig, tmp_path: Path, clips: Path) -> None:
    config = many(config, tmp_path / "many", clips)
    log = config.out / "activations" / "rank-1.jsonl"
    process = subprocess.Popen(torchrun(config, 2), stderr=subprocess.PIPE, text=True)
    wait_for_commits(log)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    process.communicate()  # torchrun ends the other one
    assert not (log.parent / "manifest.json").exists()
    refused = subprocess.run([*torchrun(config, 3), "--tokens", "every:2"], capture_output=True, text=True, timeout=120)
    assert refused.returncode != 0
    # By every rank, unless torchrun ends it before it can, because another one has said so.
    assert 1 <= refused.stderr.count('was begun with other settings, tokens = "all" (now "every:2")') <= 3
    done = subprocess.run(torchrun(config, 3), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    store = ActivationStore.open(log.parent)
    assert same(rows(store), rows(ActivationStore.open(collect(replace(config, out=tmp_path / "whole")))))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's request is Linux's")
@pytest.mark.parametrize("by_torchrun", [True, False])
def test_a_process_ends_with_a_launcher_that_is_killed(by_torchrun: bool) -> None:
    child = (
        "import time; from collect.process.ranks import end_with_launcher; "
        "end_with_launcher(); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys; "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid, flush=True); p.wait()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    if by_torchrun:
        environment["TORCHELASTIC_RUN_ID"] = "1"
    launcher = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, env=environment)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    assert launcher.stdout.readline() == "up\n"
    launcher.kill()
    launcher.wait()
    try:
        for _ in range(100):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                break
            time.sleep(0.02)
        ended = state == "Z"
    except FileNotFoundError:
        ended = True
    if not ended:
        os.kill(pid, signal.SIGKILL)
    assert ended == by_torchrun
    launcher.stdout.close()


def test_the_first_process_tells_the_others_what_is_wrong() -> None:
    def refuse() -> Any:
        raise UserError("no")

    assert json.loads(ranks._outcome(refuse)) == {"error": "no"}
    assert json.loads(ranks._outcome(lambda: [1])) == {"result": [1]}
