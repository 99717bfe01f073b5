"""A finished run of small real videos, and a real server of it."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun
from browse.media import Media
from browse.notes import Notes
from browse.server.app import Served, application
from browse.server.guard import Access
from browse.server.serving import listen, server_of
from browse.sources import RunSource, Source
from tests.steer.finished_run import finish_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, collected: Path, data_folder: Path) -> Path:
    """A run with every stage finished; copy it before writing to it."""
    return finish_run(collected, data_folder, tmp_path_factory.mktemp("browse") / "my <run>")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def library(finished: Path) -> Library:
    return Library(OpenedRun(finished))


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    access: Access
    served: Served

    @property
    def at(self) -> str:
        return f"http://127.0.0.1:{self.access.port}"

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.at, headers=headers, timeout=30.0, trust_env=False)


@contextlib.contextmanager
def serving(
    run: Path, *, token: bool = False, page: Path | None = None, source: Source | None = None
) -> Generator[Running]:
    """Serve a run from a thread, through real sockets."""
    made = source or RunSource(run)
    opened = OpenedRun(run)
    served = Served(
        name=run.name,
        source=made,
        notes=Notes(run / "notes"),
        media=Media(lambda: opened, run / "media-cache", most_bytes=1 << 30),
        **({} if page is None else {"page": page}),
    )
    with contextlib.closing(listen("127.0.0.1", 0)) as listener:
        access = Access.of("127.0.0.1", listener.getsockname()[1], is_local=not token)
        server = server_of(application(served, access))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Running(access, served)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def running(copy: Path) -> Iterator[Running]:
    with serving(copy) as server:
        yield server
