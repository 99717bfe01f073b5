from pathlib import Path

import pytest

from collect.commit_log import CommitLog, read_log
from collect.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = CommitLog(tmp_path / "log.jsonl")
    for number in range(3):
        log.append({"number": number})
    log.close()
    return tmp_path / "log.jsonl"


def test_lines_come_back_in_order(path: Path) -> None:
    assert read_log(path) == [{"number": 0}, {"number": 1}, {"number": 2}]


@pytest.mark.parametrize("kept", [1, 5, 12])
def test_a_torn_last_line_is_left_out_and_cut_off(path: Path, kept: int) -> None:
    whole = path.read_bytes()  # three lines of 13 bytes
    path.write_bytes(whole[: 26 + kept])
    assert read_log(path) == [{"number": 0}, {"number": 1}]
    log = CommitLog(path)
    log.append({"number": 9})
    log.close()
    assert read_log(path) == [{"number": 0}, {"number": 1}, {"number": 9}]


def test_a_damaged_line_in_the_middle_is_named(path: Path) -> None:
    path.write_text('{"number": 0}\nrubbish\n{"number": 2}\n')
    with pytest.raises(UserError, match=r"log\.jsonl is damaged in line 2"):
        read_log(path)


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.jsonl cannot be read"):
        read_log(tmp_path / "log.jsonl")
