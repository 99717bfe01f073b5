"""A browser and a made-up run for the tests of the page."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browse.page.chromium import browser_path, chromium, opened
from tests.browse.page.synthetic import make_site

LONGEST_S = 180


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """A test of a page that never answers fails, instead of waiting forever."""

    def fail(*_: object) -> None:
        raise TimeoutError(f"the page did not answer within {LONGEST_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of one module only: while it lives, its thread has a running event loop, which other tests must not find."""
    pytest.importorskip("playwright")
    if browser_path() is None:
        pytest.skip("there is no browser: install chromium, or name one with VIDEO_SAE_BROWSER")
    with chromium() as made:
        yield made


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    with opened(browser) as made:
        yield made


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up run as exported files."""
    return make_site(tmp_path_factory.mktemp("site"))
