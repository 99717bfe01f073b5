"""A finished run, its page, and a copy of the run that a test may change."""

import shutil
from pathlib import Path

import pytest

from report.config import ReportConfig
from report.page import report
from tests.steer.finished_run import finish_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, collected: Path, data_folder: Path) -> Path:
    return finish_run(collected, data_folder, tmp_path_factory.mktemp("report") / "my <run>")


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    path = report(ReportConfig(run=finished))
    assert path == finished / "report" / "index.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))
