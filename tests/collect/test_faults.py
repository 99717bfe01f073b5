"""kill -9 at random moments: the store ends as that of a run that was never interrupted, byte by byte."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collect.config import CollectConfig, VerifyConfig
from collect.errors import UserError
from collect.run import collect
from collect.store.verify import verify
from tests.collect.store_files import contents

N_VIDEOS = 40

# Imports once and forks for each run, so that a run can be killed in its first second as in its last.
SERVER = """
import os, sys
from pathlib import Path
import av, torch, zarr
from transformers import PerceptionLMForConditionalGeneration, PerceptionLMProcessor
from collect.config import CollectConfig
from collect.run import collect
data, model = sys.argv[1:]
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        collect(CollectConfig(data=Path(data), model=model, out=Path(line.strip()), sites=("projector", "resid/1"),
                              frames="8", batch_size=3, device="cpu", shard_rows=256))
        os._exit(0)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""


class Server:
    """Runs `collect` in processes that can be killed."""

    def __init__(self, data: Path, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(data), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, out: Path, kill_after_s: float | None = None) -> bool:
        """Run to the end, or kill -9 after so long; whether the run came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{out}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            with contextlib.suppress(ProcessLookupError):  # it ended before
                os.kill(pid, signal.SIGKILL)
        return int(self._process.stdout.readline()) == 0

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def data(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for i in range(N_VIDEOS):  # one in twenty is not a video
        (folder / f"w{i:02d}.mp4").symlink_to(clips / "videos" / f"v{3 if i % 20 == 7 else i % 3:02d}.mp4")
    return folder


@pytest.fixture(scope="module")
def server(data: Path, tiny_vlm: Path) -> Iterator[Server]:
    running = Server(data, tiny_vlm)
    yield running
    running.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """An uninterrupted run's content, and how long it takes."""
    out = tmp_path_factory.mktemp("whole")
    assert server.run(out / "first")
    begun = time.monotonic()
    assert server.run(out / "second")
    duration_s = time.monotonic() - begun
    content = contents_of(out / "first")
    assert content == contents_of(out / "second")
    return content, duration_s


def contents_of(out: Path) -> dict[str, bytes]:
    found = contents(out / "activations")
    del found["config.json"]  # it names the folder
    return found


def trial(server: Server, out: Path, whole: tuple[dict[str, bytes], float], moments: random.Random) -> int:
    """Kill a run at one to three random moments, let it end, compare; the number of kills that met a live run."""
    expected, duration_s = whole
    n_killed = 0
    for _ in range(moments.randint(1, 3)):
        n_killed += not server.run(out, kill_after_s=moments.uniform(0, duration_s))
    assert server.run(out)
    assert contents_of(out) == expected
    verify(VerifyConfig(run=out))
    return n_killed


def test_kill_9_at_random_moments(server: Server, whole: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    moments = random.Random(0)
    killed = [trial(server, tmp_path / str(i), whole, moments) for i in range(3)]
    while not any(killed) and len(killed) < 12:  # a machine that got faster since `whole` was timed ends first
        killed.append(trial(server, tmp_path / str(len(killed)), whole, moments))
    assert any(killed)


@pytest.mark.slow
def test_kill_9_at_many_random_moments(server: Server, whole: tuple[dict[str, bytes], float], tmp_path: Path) -> None:
    moments = random.Random(1)
    n_killed = 0
    for i in range(100):
        n_killed += trial(server, tmp_path / str(i), whole, moments)
        shutil.rmtree(tmp_path / str(i))
        if n_killed >= 20:
            return
    raise AssertionError(f"only {n_killed} runs were killed in 100 trials")


def test_a_full_disk_at_any_byte(clips: Path, tiny_vlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space runs out after some bytes; once there is room again, the store ends as if there always had been."""

    def config(name: str) -> CollectConfig:
        return CollectConfig(
            data=clips,
            model=str(tiny_vlm),
            out=tmp_path / name,
            sites=("resid/0",),
            frames="8",
            device="cpu",
            shard_rows=256,
        )

    collect(config("whole"))
    write = os.write
    for room in (1000, 60_000, 150_000):
        left = room

        def limited(descriptor: int, data: bytes) -> int:
            nonlocal left
            left -= len(data)
            if left < 0:
                raise OSError(28, "No space left on device")
            return write(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", limited)
            with pytest.raises(UserError, match=r"No space left on device.*make room"):
                collect(config(str(room)))
        collect(config(str(room)))
        assert contents_of(tmp_path / str(room)) == contents_of(tmp_path / "whole")


def test_a_store_that_cannot_be_read(clips: Path, tiny_vlm: Path, tmp_path: Path) -> None:
    config = CollectConfig(
        data=clips, model=str(tiny_vlm), out=tmp_path, sites=("resid/0",), frames="2", device="cpu", shard_rows=256
    )
    folder = collect(config)
    (folder / "manifest.json").unlink()
    log = folder / "rank-0.jsonl"
    log.write_bytes(b"\xff\xfe broken\n" + log.read_bytes())
    with pytest.raises(UserError, match=r"line 1 of .*rank-0\.jsonl is not valid JSON"):
        collect(config)
    log.unlink()
    log.mkdir()
    with pytest.raises(UserError, match=r"rank-0\.jsonl is not a file"):
        collect(config)
