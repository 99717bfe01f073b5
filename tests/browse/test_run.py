"""The command: it serves until it is stopped, and says what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from browse.config import BrowseConfig
from browse.gathering.opened import OpenedRun
from browse.run import browse
from browse.server.serving import listen
from browse.sources import FolderSource, RunSource
from collect.artefact.folder import file_hash, read_object, write_json
from collect.errors import UserError
from tests.small_run import SAE_NAME

ROOT = Path(__file__).resolve().parents[2]


def started(*arguments: str) -> tuple[subprocess.Popen[str], str, list[str]]:
    """A running command, the address that it printed, and the lines before it."""
    program = subprocess.Popen(
        [sys.executable, "-m", "video_sae", "browse", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert program.stderr is not None
    before: list[str] = []
    for line in program.stderr:
        found = re.match(r"Open (http://\S+)", line)
        if found is not None:
            return program, found[1], before
        before.append(line)
    raise AssertionError("".join(before))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 0)])
def test_it_serves_until_it_is_stopped(copy: Path, number: signal.Signals, status: int) -> None:
    program, address, before = started("--run", str(copy))
    try:
        assert before == []
        assert httpx.get(f"{address}healthz", trust_env=False).json() == {"ok": True}
        program.send_signal(number)
        assert program.wait(timeout=30) == status
    finally:
        program.kill()
        program.communicate()


def test_an_address_for_others_is_warned_about_and_has_a_token(copy: Path) -> None:
    program, address, before = started("--run", str(copy), "--host", "0.0.0.0")
    try:
        assert "can be reached from other machines" in "".join(before)
        token = re.search(r"\?token=([\w-]{30,})$", address)
        assert token is not None
        port = address.split(":")[2].partition("/")[0]
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port}/healthz?token={token[1]}", trust_env=False).status_code == 200
    finally:
        program.kill()
        program.communicate()


def test_a_port_that_is_taken_is_named(copy: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match=r"--port"):
            listen("127.0.0.1", other.getsockname()[1])
    with pytest.raises(UserError, match=r"--host"):
        listen("no-such-host.invalid", 0)
    with pytest.raises(UserError, match="no run"):
        browse(BrowseConfig(run=copy / "nothing"))
    with pytest.raises(UserError, match="no SAE"):
        browse(BrowseConfig(run=copy, sae="nothing"))


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"port": 70000},
        {"cache_gb": 0.0},
        {"cache_gb": float("inf")},
        {"cache_gb": float("nan")},
        {"host": ""},
        {"host": "a b"},
        {"host": "http://x"},
    ],
)
def test_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="--"):
        BrowseConfig(run=Path("run"), **options)  # type: ignore[arg-type]


def test_a_folder_that_is_no_run_is_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run: no stage has begun there"):
        browse(BrowseConfig(run=data_folder))
    with pytest.raises(UserError, match="is no run"):
        browse(BrowseConfig(run=data_folder, export=tmp_path / "page"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stage", ["features", "steer"])
def test_tables_of_an_earlier_sae_are_not_shown_beside_another(copy: Path, stage: str) -> None:
    config = copy / stage / SAE_NAME / "config.json"
    weights = copy / "sae" / SAE_NAME / "sae_weights.safetensors"
    content = read_object(config, "")
    write_json(config, {**content, "inputs": {**content["inputs"], "sae": file_hash(weights)}})
    OpenedRun(copy).check()
    write_json(config, {**content, "inputs": {**content["inputs"], "sae": "0" * 64}})
    with pytest.raises(UserError, match=f"{stage}/{SAE_NAME} was made with another SAE"):
        browse(BrowseConfig(run=copy))


def test_a_run_that_goes_on_is_read_again(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browse.sources.CHECK_EVERY_S", 0.0)
    away = Path(shutil.move(copy / "features", tmp_path / "features"))
    source = RunSource(copy)
    assert source.encoded(f"{SAE_NAME}/latents") is None
    before = source.version
    shutil.move(away, copy / "features")
    assert source.version == before + 1
    assert source.encoded(f"{SAE_NAME}/latents") is not None
    assert source.version == before + 1


def test_what_is_damaged_is_said_in_the_shard(copy: Path) -> None:
    path = copy / "features" / SAE_NAME / "catalogue.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    source = RunSource(copy)
    shard = source.shard(f"{SAE_NAME}/latents")
    assert shard is not None
    assert "catalogue.parquet" in shard.meta["error"]
    assert source.shard("videos") is not None


def test_shards_are_made_once_however_many_ask(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = RunSource(copy)
    made: list[str] = []
    original = source.library.shard

    def shard(name: str) -> object:
        made.append(name)
        time.sleep(0.05)
        return original(name)

    monkeypatch.setattr(source.library, "shard", shard)
    threads = [threading.Thread(target=source.encoded, args=("videos",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["videos"]


def test_shards_are_prepared_in_the_order_in_which_they_are_wanted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = RunSource(copy)
    made: list[str] = []
    original = source.library.shard
    monkeypatch.setattr(source.library, "shard", lambda name: (made.append(name), original(name))[1])
    source.prepare(threading.Event())
    assert made == ["run", "videos", f"{SAE_NAME}/latents", "tasks", f"{SAE_NAME}/latent/0"]
    stopped = threading.Event()
    stopped.set()
    made.clear()
    RunSource(copy).prepare(stopped)
    assert made == []


def test_a_folder_of_shards_gives_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (tmp_path / "shards" / "link.js").symlink_to(tmp_path / "secret.js")
    source = FolderSource(tmp_path / "shards")
    assert source.encoded("../secret") is None
    with pytest.raises(UserError):
        source.encoded("link")
