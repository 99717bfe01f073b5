"""One writer of a folder at a time, also where the file system has no `flock`."""

import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from collect.artefact import lock as file_lock
from collect.artefact.lock import take_lock, writing
from collect.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from collect.artefact.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["flock", "without flock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without flock":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


@pytest.mark.usefixtures("kind")
def test_one_holder_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "features" / "one"
    with writing(folder):
        (folder / "table").write_text("rows")
        with (
            pytest.raises(UserError, match=re.escape(f"{folder} is being written by another process (")),
            writing(folder),
        ):
            pass
    assert [path.name for path in folder.iterdir()] == ["table"]
    with writing(folder):
        pass


def test_a_folder_that_another_process_is_removing_is_not_taken_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat, looks = Path.stat, iter([None])

    def removed_after_one_look(self: Path, **named: bool) -> os.stat_result:
        if self == tmp_path / "folder" and next(looks, self) is self and not (tmp_path / "again").exists():
            (tmp_path / "folder").rmdir()
            (tmp_path / "again").mkdir()
        return stat(self, **named)

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(Path, "stat", removed_after_one_look)
    with writing(tmp_path / "folder"):
        assert (tmp_path / "folder").is_dir()


@pytest.mark.usefixtures("kind")
def test_a_refusal_names_the_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/video_sae.py", "features", "--run", "runs/a\x1b[31m b"])
    with writing(tmp_path), pytest.raises(UserError) as refusal, writing(tmp_path):
        pass
    text = str(refusal.value)
    assert "`video-sae features --run 'runs/a\\x1b[31m b'`" in text
    assert f"process {os.getpid()} on {socket.gethostname()}, since 20" in text


@pytest.mark.usefixtures("kind")
def test_a_folder_that_nothing_is_put_into_is_removed_again(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ZeroDivisionError), writing(tmp_path / "run" / "features" / "one"):
        raise ZeroDivisionError
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.usefixtures("kind")
def test_of_many_threads_each_gets_the_lock_alone(tmp_path: Path) -> None:
    inside, most = [], []

    def work() -> None:
        for _ in range(5):
            with writing(tmp_path / "folder", wait=True):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} on "), writing(tmp_path):
            pass
        holder.kill()
        holder.wait()
        assert [path.name for path in tmp_path.iterdir()] == [file_lock.LOCK_NAME]
        with writing(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["without flock"], indirect=True)
@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_without_flock_what_a_dead_process_left_is_taken_over_if_it_was_of_this_machine(
    tmp_path: Path, kind: str, host: str
) -> None:
    assert kind == "without flock"
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = tmp_path / ".writer.claim.lock"
    left = {"pid": process.pid, "host": socket.gethostname() if host == "here" else "elsewhere", "command": "x"}
    path.write_text(json.dumps(left))
    if host == "here":
        with writing(tmp_path):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert list(tmp_path.iterdir()) == []
    else:
        remedy = re.escape(f"on elsewhere, since unknown): wait until it ends, or end it, or delete {path} if it is no")
        with pytest.raises(UserError, match=remedy), writing(tmp_path):
            pass
        assert json.loads(path.read_text()) == left


def test_a_number_that_a_new_process_has_now_is_not_its_old_holder(tmp_path: Path) -> None:
    del tmp_path
    ours = file_lock._ourselves()
    assert not file_lock._is_dead(ours)
    assert file_lock._is_dead({**ours, "began": "1"})


def test_what_holds_a_lock_without_saying_so_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.lock"
    path.write_text("{")
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match=r"^activations is being written by another process: wait"):
        take_lock(path, Path("activations"))
    os.close(descriptor)
    take_lock(path, Path("activations")).release()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(UserError, match=re.escape(f"{tmp_path / 'run'} is not a folder")),
        writing(tmp_path / "run/a/b"),
    ):
        pass


@pytest.mark.parametrize("below", ["", "run", "a/b/c"])
def test_a_link_to_nothing_is_named_at_once(tmp_path: Path, below: str) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    message = re.escape(f"{tmp_path / 'link'} is a link to {tmp_path / 'gone'}, which does not exist: make that folder")
    with pytest.raises(UserError, match=message), writing(tmp_path / "link" / below):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with writing(tmp_path / "link" / "run"):
        (tmp_path / "there" / "run" / "table").write_text("rows")
    assert (tmp_path / "there" / "run" / "table").exists()


def test_where_no_folder_can_be_made_the_waiting_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)  # as the file system below /proc does
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'run'} cannot be made")), writing(tmp_path / "run"):
        pass
