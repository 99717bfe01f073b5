"""The bench that the tests of this folder share: built once, in a few seconds of a core."""

import pytest

from tests.fuzz.trials import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("fuzz") / "bench")
