from pathlib import Path

import google_crc32c
import pytest

from collect.errors import UserError
from collect.store.commit_log import CommitLog, encoded, read_log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = CommitLog(tmp_path / "log.jsonl")
    for number in range(3):
        log.append({"number": number})
    log.close()
    return tmp_path / "log.jsonl"


def test_lines_come_back_in_order(path: Path) -> None:
    assert read_log(path).lines == ({"number": 0}, {"number": 1}, {"number": 2})


def test_a_checksum_covers_the_line_and_those_before_it(path: Path) -> None:
    """Worked out from the format's description: of the lines so far, each up to its own checksum, in one piece."""
    so_far = b""
    for line in path.read_bytes().splitlines():
        body, _, tail = line.rpartition(b',"crc32c":')
        so_far += body
        assert tail == b'"%08x"}' % google_crc32c.value(so_far)
    assert read_log(path).checksum == google_crc32c.value(so_far)


def test_every_flipped_bit_is_found(path: Path) -> None:
    whole = path.read_bytes()
    for at in range(8 * (len(whole) - 1)):  # without the last newline: a line that lacks it was never written
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(UserError, match=r"log\.jsonl"):
            read_log(path)


@pytest.mark.parametrize("order", [(0, 0, 1, 2), (0, 2), (1, 2), (0, 2, 1), (0, 1, 1, 2), (0, 1, 2, 2)])
def test_lines_that_are_lost_or_moved_are_found(path: Path, order: tuple[int, ...]) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(UserError, match="fails its checksum, or a line before it is missing"):
        read_log(path)


def test_a_log_without_checksums_is_read_and_goes_on_without(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"number": 0}\n{"number": 1}\n')
    assert read_log(path).checksum is None
    log = CommitLog(path)
    log.append({"number": 2})
    log.close()
    assert path.read_text().endswith('\n{"number":2}\n')
    assert len(read_log(path).lines) == 3
    with path.open("ab") as file:
        file.write(encoded({"number": 3}, 0)[0])
    with pytest.raises(UserError, match="line 4 has no checksum where another has"):
        read_log(path)


@pytest.mark.parametrize("kept", [1, 5, 12])
def test_a_torn_last_line_is_left_out_and_cut_off(path: Path, kept: int) -> None:
    whole = path.read_bytes()  # three lines of 12 + 21 + 1 bytes
    path.write_bytes(whole[: 68 + kept])
    assert read_log(path).lines == ({"number": 0}, {"number": 1})
    log = CommitLog(path)
    log.append({"number": 9})
    log.close()
    assert read_log(path).lines == ({"number": 0}, {"number": 1}, {"number": 9})


def test_a_damaged_line_in_the_middle_is_named(path: Path) -> None:
    path.write_text('{"number": 0}\nrubbish\n{"number": 2}\n')
    with pytest.raises(UserError, match=r"line 2 of .*log\.jsonl is not valid JSON"):
        read_log(path)


def test_no_log(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"log\.jsonl does not exist"):
        read_log(tmp_path / "log.jsonl")
