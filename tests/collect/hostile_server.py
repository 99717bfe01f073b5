"""A server on the loopback address that answers with whatever bytes it is given, and an honest one afterwards."""

import re
import socket
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What is sent for one request."""

    status: str = "200 OK"
    headers: Sequence[str] = ()
    """Lines; `{start}`, `{last}`, `{rest}` and `{size}` stand for what is true of the file and the asked range."""
    body: str = "rest"
    """`rest`: what was asked for; `whole`; `half` of the rest; `none`; `more`: the rest and as much junk again;
    `endless`: junk until the client has had enough; `drip`: a byte now and then; `silence`: nothing, but the connection
    stays."""
    raw: bytes | None = None
    """Sent instead of all that."""


ENDLESS_BYTES = 64 << 20
"""More than any client in the tests may take."""


@dataclass
class HostileServer:
    """What is served."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    replies: list[Reply] = field(default_factory=list)
    """For the next requests, whatever they ask for; then the server is honest."""
    n_requests: int = 0


@contextmanager
def hostile(files: Mapping[str, bytes]) -> Generator[HostileServer]:
    state = HostileServer(files=dict(files))
    ended = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    threads: list[threading.Thread] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=_serve, args=(connection, state, ended), daemon=True)
            thread.start()
            threads.append(thread)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    state.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield state
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for thread in (accepting, *threads):
            thread.join(timeout=10)


def _serve(connection: socket.socket, state: HostileServer, ended: threading.Event) -> None:
    with connection:
        try:
            connection.settimeout(5)
            request = b""
            while b"\r\n\r\n" not in request and (block := connection.recv(65536)):
                request += block
            method, path = request.split(b" ")[:2]
            content = state.files.get(path.decode().lstrip("/"))
            asked = re.search(rb"(?i)\r\nRange: bytes=(\d+)-", request)
            state.n_requests += 1
            reply = state.replies.pop(0) if state.replies else None
            start = int(asked[1]) if asked else 0
            for block in _answer(content, start, method == b"HEAD", reply):
                connection.sendall(block)
                if len(block) <= 1 and ended.wait(0.02):
                    return
        except OSError:
            return  # the client has had enough


def _answer(content: bytes | None, start: int, is_head: bool, reply: Reply | None) -> Generator[bytes]:
    if content is None:
        yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        return
    if reply is None:
        reply = Reply(headers=("Content-Length: {size}", 'ETag: "v"'), body="whole")
        if 0 < start < len(content):
            reply = Reply(
                status="206 Partial Content",
                headers=("Content-Length: {rest}", "Content-Range: bytes {start}-{last}/{size}", 'ETag: "v"'),
            )
    if reply.raw is not None:
        yield reply.raw
        return
    rest = content[start:]
    true = {"start": start, "last": len(content) - 1, "rest": len(rest), "size": len(content)}
    lines = [f"HTTP/1.1 {reply.status}", *(line.format(**true) for line in reply.headers)]
    yield "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1", "replace")
    if is_head:
        return
    if reply.body in ("drip", "silence"):
        for _ in range(500):  # ten seconds
            yield b"x" if reply.body == "drip" else b""
        return
    if reply.body == "endless":
        yield rest
        for _ in range(ENDLESS_BYTES >> 20):
            yield b"j" * (1 << 20)
        return
    bodies = {
        "rest": rest,
        "whole": content,
        "half": rest[: len(rest) // 2],
        "none": b"",
        "more": rest + b"j" * len(rest),
    }
    yield bodies[reply.body]
