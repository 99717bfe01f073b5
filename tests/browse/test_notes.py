from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from browse.notes import EVENTS_NAME, MOST_VALUE_BYTES, ConflictError, Notes
from collect.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes")
    assert notes.merged() == {"version": 0, "notes": {}, "names": {}, "judgements": {}, "views": {}, "blind": {}}
    assert notes.write("note", "S:740", "fires on <b>lamps</b>", 0).version == 1
    assert notes.write("name", "S:740", "lamp", 0).version == 1
    assert notes.write("note", "S:740", "fires on lamps", 1).version == 2
    again = Notes(tmp_path / "notes").merged()
    assert again["notes"] == {"S:740": {"value": "fires on lamps", "version": 2}}
    assert again["names"] == {"S:740": {"value": "lamp", "version": 1}}
    assert again["version"] == 3


def test_a_change_from_an_old_version_is_refused_and_tells_the_current_value(tmp_path: Path) -> None:
    notes, other = Notes(tmp_path), Notes(tmp_path)
    notes.write("note", "a", "first", 0)
    other.write("note", "a", "second", 1)
    with pytest.raises(ConflictError) as conflict:
        notes.write("note", "a", "third", 1)
    assert (conflict.value.current.value, conflict.value.current.version) == ("second", 2)
    assert notes.merged()["notes"]["a"]["value"] == "second"


def test_deleting_keeps_the_version(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.write("view", "mine", {"hash": "#/S"}, 0)
    notes.write("view", "mine", None, 1)
    assert notes.merged()["views"] == {}
    with pytest.raises(ConflictError):
        notes.write("view", "mine", "again", 0)
    assert notes.write("view", "mine", "again", 2).version == 3


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("nonsense", "a", 1),
        ("note", "", 1),
        ("note", "a" * 1001, 1),
        ("note", "a", "x" * (MOST_VALUE_BYTES + 1)),
        ("note", "a", float("nan")),
    ],
)
def test_what_is_no_note_is_refused(tmp_path: Path, kind: str, key: str, value: object) -> None:
    with pytest.raises(UserError):
        Notes(tmp_path).write(kind, key, value, 0)
    assert not (tmp_path / EVENTS_NAME).exists()


def write_many(folder: str, who: int, n: int) -> None:
    notes = Notes(Path(folder))
    for number in range(n):
        notes.write("note", f"{who}:{number}", number, 0)
        while True:
            current = notes.merged()["notes"].get("shared", {"value": [], "version": 0})
            try:
                notes.write("note", "shared", [*current["value"], f"{who}:{number}"], current["version"])
                break
            except ConflictError:
                continue


def test_two_programs_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    n = 6
    programs = [context.Process(target=write_many, args=(str(tmp_path), who, n)) for who in range(2)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
        assert program.exitcode == 0
    written = Notes(tmp_path).merged()["notes"]
    everything = {f"{who}:{number}" for who in range(2) for number in range(n)}
    assert everything <= set(written)
    assert sorted(written["shared"]["value"]) == sorted(everything)


def test_threads_of_one_server_lose_nothing(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    threads = [
        threading.Thread(target=lambda who=who: [notes.write("note", f"{who}:{n}", n, 0) for n in range(10)])
        for who in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Notes(tmp_path).merged()["notes"]) == 40


def test_a_line_that_a_killed_process_left_half_written_is_left_out_and_written_over(tmp_path: Path) -> None:
    notes = Notes(tmp_path)
    notes.write("note", "a", "whole", 0)
    path = tmp_path / EVENTS_NAME
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        again = Notes(tmp_path)
        assert again.merged()["notes"] == {"a": {"value": "whole", "version": 1}}
    again.write("note", "b", "next", 0)
    assert [json.loads(line)["key"] for line in path.read_bytes().splitlines()] == ["a", "b"]


def test_a_damaged_line_is_named_and_the_others_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes(tmp_path)
    notes.write("note", "a", "good", 0)
    notes.write("note", "b", "bad", 0)
    path = tmp_path / EVENTS_NAME
    path.write_bytes(path.read_bytes().replace(b'"bad"', b'"mad"') + b"not json\n[1]\n")
    assert Notes(tmp_path).merged()["notes"] == {"a": {"value": "good", "version": 1}}
    assert [record.args[1] for record in caplog.records if isinstance(record.args, tuple)] == [2, 3, 4]


def test_kill_9_while_writing_loses_no_finished_note(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from browse.notes import Notes\n"
        "notes = Notes(Path(sys.argv[1]))\n"
        "n = len(notes.merged()['notes'])\n"
        "while True:\n"
        "    notes.write('note', str(n), 'x' * 2000, 0); print(n, flush=True); n += 1\n"
    )
    told = -1
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ
        ) as program:
            assert program.stdout is not None
            told = max(told, int(program.stdout.readline()))
            time.sleep(0.05)
            program.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in program.stdout if line.endswith("\n"))])
        written = Notes(tmp_path).merged()["notes"]
        assert {str(number) for number in range(told + 1)} <= set(written)


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    target = tmp_path / "elsewhere"
    (tmp_path / "notes" / EVENTS_NAME).symlink_to(target)
    with pytest.raises(OSError, match=r"not a file|symbolic"):
        Notes(tmp_path / "notes").write("note", "a", 1, 0)
    assert not target.exists()
