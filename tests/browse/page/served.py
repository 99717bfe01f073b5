"""Serves a made-up run with browse's own server in a process that can be killed.

    python -m tests.browse.page.served SITE NOTES

writes its address on a line and goes on until it is ended.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[3]


class FolderMedia:
    """The clips and stills of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, name: str) -> tuple[Path, str] | None:
        return self.folder, name


def serve(site: Path, notes: Path) -> None:
    """Serve until the process ends."""
    from browse.notes import Notes
    from browse.server.app import Served, application
    from browse.server.guard import Access
    from browse.server.serving import listen, server_of
    from browse.sources import FolderSource

    listener = listen("127.0.0.1", 0)
    access = Access.of("127.0.0.1", listener.getsockname()[1], is_local=True)
    media = cast("Any", FolderMedia(site / "media"))
    served = Served(name="made-up", source=FolderSource(site / "shards"), notes=Notes(notes), media=media)
    sys.stdout.write(access.url + "\n")
    sys.stdout.flush()
    server_of(application(served, access)).run(sockets=[listener])


@contextmanager
def serving(site: Path, notes: Path) -> Iterator[tuple[str, Any]]:
    """The address of a server and its process, which is killed at the end."""
    command = [sys.executable, "-m", "tests.browse.page.served", str(site), str(notes)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
