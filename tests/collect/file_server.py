"""An HTTP server on the loopback address that serves bytes and misbehaves as it is told to."""

import io
import zipfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class FileServer:
    """What is served and how badly; may be changed while it runs."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    """Path without leading slash -> content."""
    cuts: list[int] = field(default_factory=list)
    """Bytes after which each of the next bodies breaks off."""
    statuses: list[int] = field(default_factory=list)
    """Status codes that the next requests for a body get instead of one."""
    knows_ranges: bool = True
    etag: str | None = '"v1"'
    length_error: int = 0
    """Added to every Content-Length."""
    has_length: bool = True
    range_error: int = 0
    """Added to the first byte that a partial answer claims to begin with."""
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    """(method, path, Range) of every request."""


@contextmanager
def serving(files: Mapping[str, bytes]) -> Generator[FileServer]:
    state = FileServer(files=dict(files))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(is_head=True)

        def do_GET(self) -> None:
            self._answer(is_head=False)

        def _answer(self, *, is_head: bool) -> None:
            asked = self.headers.get("Range")
            state.log.append((self.command, self.path.lstrip("/"), asked))
            content = state.files.get(self.path.lstrip("/"))
            if content is None or (state.statuses and not is_head):
                self.send_error(404 if content is None else state.statuses.pop(0))
                return
            start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked and state.knows_ranges else 0
            if self.headers.get("If-Range", state.etag) != state.etag:
                start = 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            body = content[start:]
            if start:
                first = start + state.range_error
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            if state.has_length:
                self.send_header("Content-Length", str(len(body) + state.length_error))
            if state.etag is not None:
                self.send_header("ETag", state.etag)
            self.end_headers()
            if not is_head:
                self.wfile.write(body[: state.cuts.pop(0)] if state.cuts else body)
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def zip_bytes(members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
