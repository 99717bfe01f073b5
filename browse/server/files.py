"""Files over HTTP: the page's own, shards, and media with ranges.

Only regular files within a given folder are opened, once all links are followed. A file is sent in small pieces, so
that a large one, or a slow client, takes no memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import resources
from pathlib import Path

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from collect.artefact.inside import inside, open_regular
from collect.errors import UserError

PAGE = Path(str(resources.files("browse"))) / "page"
"""The page's own files."""
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
}
"""What is served, by suffix; nothing else is."""
PIECE_BYTES = 1 << 16
LONGEST_RANGE = 64
"""Characters of a `Range` header; one range of two numbers needs no more."""
_RANGE = re.compile(r"bytes=([0-9]{0,15})-([0-9]{0,15})")


async def send_file(request: Request, folder: Path, name: str) -> Response:
    """A file within a folder, or a part of it."""
    try:
        path = inside(folder, name)
    except UserError:
        return not_found()
    kind = TYPES.get(path.suffix.lower())
    if kind is None:
        return not_found()
    try:
        descriptor = await anyio.to_thread.run_sync(open_regular, path)
    except OSError:
        return not_found()
    try:
        status = os.fstat(descriptor)
        size = status.st_size
        tag = f'"{status.st_mtime_ns:x}-{size:x}"'
        headers = {"etag": tag, "cache-control": "no-cache", "accept-ranges": "bytes"}
        if tag in request.headers.get("if-none-match", ""):
            os.close(descriptor)
            return Response(status_code=304, headers=headers)
        asked = request.headers.get("range")
        if asked is not None and request.headers.get("if-range", tag) != tag:
            asked = None
        span = (0, size) if asked is None else parse_range(asked, size)
        if span is None:
            os.close(descriptor)
            return PlainTextResponse(
                "The range is none of this file.\n", 416, headers={**headers, "content-range": f"bytes */{size}"}
            )
        headers["content-length"] = str(span[1] - span[0])
        if asked is not None:
            headers["content-range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
        if request.method == "HEAD":
            os.close(descriptor)
            return Response(status_code=200 if asked is None else 206, headers=headers, media_type=kind)
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
    return StreamingResponse(
        _pieces(descriptor, *span), status_code=200 if asked is None else 206, headers=headers, media_type=kind
    )


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """First byte, and the one after the last, of a `Range` header; None unless it is one range within the file."""
    match = _RANGE.fullmatch(header.strip()) if len(header) <= LONGEST_RANGE else None
    if match is None or not size:
        return None
    first, last = match[1], match[2]
    if first:
        start, stop = int(first), min(int(last), size - 1) + 1 if last else size
    elif last:
        start, stop = max(size - int(last), 0), size  # the last bytes
    else:
        return None
    return (start, stop) if start < min(stop, size) else None


async def _pieces(descriptor: int, start: int, stop: int) -> AsyncIterator[bytes]:
    try:
        while start < stop:
            piece = await anyio.to_thread.run_sync(os.pread, descriptor, min(PIECE_BYTES, stop - start), start)
            if not piece:
                return  # the file was cut meanwhile; the client sees that bytes are missing
            start += len(piece)
            yield piece
    finally:
        os.close(descriptor)


def send_bytes(request: Request, content: bytes, tag: str, kind: str) -> Response:
    """What is held in memory."""
    headers = {"etag": f'"{tag}"', "cache-control": "no-cache"}
    if headers["etag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


def not_found() -> Response:
    """There is no such thing."""
    return PlainTextResponse("There is nothing of that name.\n", 404)
