"""The record of a training: what a line holds, and what a damaged one costs."""

from pathlib import Path

import pytest

from train_sae.config import Member, TrainConfig
from train_sae.reading import METRICS_NAME, read_metrics
from train_sae.run_log import MetricsLog


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
