"""Ranges, and clients that are too slow."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from browse.server.files import parse_range
from tests.browse.conftest import Running, raw


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-99999999", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=99-99", (99, 100)),
        ("bytes=100-", None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=-0", None),
        ("bytes=0-1,4-5", None),
        ("bytes=" + ",".join(["0-"] * 2000), None),
        ("bytes=0-" + "9" * 100, None),
        ("bytes=٣-", None),
        ("items=0-1", None),
        ("", None),
    ],
)
def test_ranges_are_one_part_of_the_file(header: str, span: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == span
    assert parse_range(header, 0) is None


def test_a_clip_is_served_in_ranges(running: Running) -> None:
    with running.client() as client:
        whole = client.get("/media/clips/video_0.mp4")
        assert whole.status_code == 200
        assert whole.headers["content-type"] == "video/mp4"
        assert whole.headers["accept-ranges"] == "bytes"
        size = len(whole.content)
        part = client.get("/media/clips/video_0.mp4", headers={"range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, whole.content[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{size}"
        assert part.headers["content-length"] == "10"
        tail = client.get("/media/clips/video_0.mp4", headers={"range": "bytes=-5"})
        assert tail.content == whole.content[-5:]
        many = client.get("/media/clips/video_0.mp4", headers={"range": "bytes=0-1,3-4"})
        assert (many.status_code, many.headers["content-range"]) == (416, f"bytes */{size}")
        stale = client.get("/media/clips/video_0.mp4", headers={"range": "bytes=0-1", "if-range": '"old"'})
        assert (stale.status_code, len(stale.content)) == (200, size)
        assert client.head("/media/clips/video_0.mp4").headers["content-length"] == str(size)


def test_clients_that_never_finish_hold_nobody_up(running: Running) -> None:
    slow = [socket.create_connection(("127.0.0.1", running.access.port)) for _ in range(40)]
    try:
        host = f"127.0.0.1:{running.access.port}".encode()
        for number, connection in enumerate(slow):
            if number % 2:
                connection.sendall(b"GET /shards/run.js HTTP/1.1\r\nHo")
            else:
                connection.sendall(
                    b"POST /api/notes HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Video-Sae: %s\r\n"
                    b'Content-Length: 1000\r\n\r\n{"kind"' % (host, running.access.csrf.encode())
                )
        with running.client() as client:
            client.get("/shards/run.js")
            started = time.monotonic()
            for _ in range(10):
                assert client.get("/shards/run.js").status_code == 200
            assert time.monotonic() - started < 5.0
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_is_too_slow_is_dropped(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("browse.server.serving.SLOWEST_REQUEST_S", 0.3)
    monkeypatch.setattr("browse.server.endpoints.SLOWEST_BODY_S", 0.3)
    started = time.monotonic()
    assert raw(running, b"GET / HTTP/1.1\r\nHo") == b""
    host = f"127.0.0.1:{running.access.port}"
    lines = [
        "POST /api/notes HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"X-Video-Sae: {running.access.csrf}",
        "Content-Length: 1000",
        "Connection: close",
        "",
        "{",
    ]
    assert raw(running, "\r\n".join(lines).encode()).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 9.0


def test_a_client_that_does_not_take_its_answer_is_dropped() -> None:
    import asyncio

    from browse.server.serving import TimedSending

    sent: list[str] = []

    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start"})
        await send({"type": "http.response.body"})
        sent.append("all")

    async def never(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    asyncio.run(TimedSending(app, 0.05)({"type": "http"}, never, never))
    assert sent == ["http.response.start", "http.response.body"]


def test_headers_without_end_are_refused(running: Running) -> None:
    answer = raw(running, b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"431")
