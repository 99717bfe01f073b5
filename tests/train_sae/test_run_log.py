"""The record of a training: what a line holds, and what a damaged one costs."""

import json
from pathlib import Path

import pytest

from collect.errors import UserError
from train_sae.config import Member, TrainConfig
from train_sae.run_log import METRICS_NAME, MetricsLog, read_metrics


@pytest.fixture
def member(tmp_path: Path) -> Member:
    config = TrainConfig(run=tmp_path, site="resid/1", d_sae=(8,), k=(2,), lr=(1e-3,), name="sae")
    (member,) = config.members()
    member.folder.mkdir(parents=True)
    return member


@pytest.fixture
def three_lines(member: Member) -> Path:
    """Lines of the steps 10, 20 and 30."""
    log = MetricsLog(member, 0)
    for step in (10, 20, 30):
        log.write({"step": step, "fvu": 1 / step, "tokens": 128 * step})
    log.close()
    return member.folder


def test_lines_come_back_as_they_were_written(three_lines: Path) -> None:
    assert read_metrics(three_lines) == [{"step": n, "fvu": 1 / n, "tokens": 128 * n} for n in (10, 20, 30)]


def test_a_training_without_a_record_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_any_flipped_bit_of_a_line_is_found_or_changes_nothing(three_lines: Path) -> None:
    path = three_lines / METRICS_NAME
    whole = path.read_bytes()
    expected = read_metrics(three_lines)
    found = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert [{n: line[n] for n in ("step", "fvu", "tokens")} for line in read_metrics(three_lines)] == expected
        except UserError as error:
            assert METRICS_NAME in str(error)  # noqa: PT017
            found += 1
    assert found > len(whole) / 5


@pytest.mark.parametrize(
    "line",
    ["", "[" * 10_000, "[1]", '{"step": "10"}', '{"fvu": 1}', '{"step": ' + "9" * 5000 + "}", '{"step": 1, "fvu": {}}'],
)
def test_a_line_that_is_none_is_named_by_its_number(three_lines: Path, line: str) -> None:
    path = three_lines / METRICS_NAME
    first, _, third = path.read_text().splitlines()
    path.write_text(f"{first}\n{line}\n{third}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2,.*: delete that line"):
        read_metrics(three_lines)


def test_a_resumed_training_names_damaged_lines_and_leaves_out_later_ones(
    member: Member, three_lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = three_lines / METRICS_NAME
    first, second, third = path.read_text().splitlines()
    damaged = second.replace('"tokens": 2560', '"tokens": 2561')
    assert damaged != second
    path.write_text(f"{first}\n{damaged}\n{third}\n" + '{"step": 40, "fv')
    MetricsLog(member, 20).close()
    assert [line["step"] for line in read_metrics(three_lines)] == [10]
    assert "line 2" in caplog.text
    assert "line 4" not in caplog.text


def test_a_line_of_an_earlier_version_has_no_checksum(three_lines: Path) -> None:
    (three_lines / METRICS_NAME).write_text(json.dumps({"step": 5, "fvu": float("nan")}) + "\n")
    (line,) = read_metrics(three_lines)
    assert line["step"] == 5
