"""A store to archive, and an archive of a small one."""

import shutil
from pathlib import Path

import pytest

from collect.artefact.config_json import write_config
from tests.collect.store_files import write_store

LENGTHS = (3, 0, 7, 1, 5, 0, 4, 2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_store(tmp_path / "run" / "activations", LENGTHS)
    write_config(folder, "collect", {}, {})
    return tmp_path / "run"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two shards, and beside it archives of both kinds."""
    pytest.importorskip("obstore")
    from collect.store.archive import open_target, save

    folder = tmp_path_factory.mktemp("small")
    write_config(write_store(folder / "activations", (3, 0, 4)), "collect", {}, {})
    for compress in (False, True):
        save(folder / "activations", open_target(str(folder / str(compress))), compress=compress)
    return folder


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def compress(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def place(small: Path, tmp_path: Path, compress: bool) -> Path:
    """A copy of the archive."""
    return Path(shutil.copytree(small / str(compress), tmp_path / "archive"))
