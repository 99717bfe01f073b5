"""The record of a training: what a line holds, and what a damaged one costs."""

from pathlib import Path

import pytest

from train_sae.config import TrainConfig
from train_sae.reading import METRICS_NAME, read_metrics
from train_sae.run_log import MetricsLog
from train_sae.settings import SaeSettings, resolve


@pytest.fixture
def settings(tmp_path: Path) -> SaeSettings:
    config = TrainConfig(run=tmp_path, site="resid/1", d_sae=(8,), k=(2,), name="sae", dtype="float32")
    (sae,) = config.saes()
    sae.folder.mkdir(parents=True)
    return resolve(sae, d_in=4, n_tokens=100)


@pytest.fixture
def three_lines(settings: SaeSettings) -> Path:
    """Lines of the steps 10, 20 and 30."""
    log = MetricsLog(settings, 0)
    for step in (10, 20, 30):
        log.write({"step": step, "fvu": 1 / step, "tokens": 128 * step})
    log.close()
    return settings.folder


def test_lines_come_back_as_they_were_written(three_lines: Path) -> None:
    assert read_metrics(three_lines) == [{"step": n, "fvu": 1 / n, "tokens": 128 * n} for n in (10, 20, 30)]


def test_a_resumed_training_names_damaged_lines_and_leaves_out_later_ones(
    settings: SaeSettings, three_lines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = three_lines / METRICS_NAME
    first, second, third = path.read_text().splitlines()
    damaged = second.replace('"tokens": 2560', '"tokens": 2561')
    assert damaged != second
    path.write_text(f"{first}\n{damaged}\n{third}\n" + '{"step": 40, "fv')
    MetricsLog(settings, 20).close()
    assert [line["step"] for line in read_metrics(three_lines)] == [10]
    assert "line 2" in caplog.text
    assert "line 4" not in caplog.text
