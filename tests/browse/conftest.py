"""A finished run of small real videos, and a real server of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from browse.gathering.library import Library
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.media import Media
from browse.notes import Notes
from browse.server.app import Served, application
from browse.server.guard import CSRF_HEADER, Access
from browse.server.serving import listen, server_of
from browse.sources import RunSource, Source
from tests.small_run import SAE_NAME
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


def raw(running: Running, request: bytes, wait_s: float = 10.0) -> bytes:
    """What the server sends for some bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", running.access.port), timeout=wait_s) as connection:
        connection.sendall(request)
        parts: list[bytes] = []
        try:
            while part := connection.recv(1 << 16):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
    return b"".join(parts)


def get(path: str, host: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", *([f"Host: {host}"] if host else []), *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(running: Running, client: httpx.Client, body: Any, **headers: str) -> httpx.Response:
    sent = {CSRF_HEADER: running.access.csrf, "content-type": "application/json", **headers}
    return client.post("/api/notes", content=json.dumps(body), headers=sent)


@pytest.fixture(scope="session")
def sae(library: Library) -> OpenedSae:
    found = library.sae(SAE_NAME)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def pages(library: Library) -> list[dict[str, Any]]:
    shard = library.shard(f"{SAE_NAME}/latent/0")
    assert shard is not None
    return list(shard.columns["json"].values)


@pytest.fixture(scope="session")
def dense(sae: OpenedSae) -> np.ndarray:
    """Activations [token, latent]."""
    return sae.codes.rows(0, sae.codes.n_tokens).toarray()
