"""The routes: the page and its files, shards, media, and the endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from browse.media import Media
from browse.notes import Notes
from browse.server.endpoints import Endpoints
from browse.server.files import PAGE, not_found, send_bytes, send_file
from browse.server.guard import Access, Guard
from browse.sources import Source
from collect.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is served."""

    name: str
    """Of the run."""
    source: Source
    notes: Notes
    media: Media | None
    """Clips and stills; None if there are none."""
    page: Path = PAGE


def application(served: Served, access: Access) -> ASGIApp:
    """The server of one run."""
    endpoints = Endpoints(served.name, served.source, served.notes, access)

    async def index(request: Request) -> Response:
        return await send_file(request, served.page, "index.html")

    async def page(request: Request) -> Response:
        return await send_file(request, served.page, request.path_params["name"])

    async def shard(request: Request) -> Response:
        name = str(request.path_params["name"])
        part = name.removesuffix(".js")
        at_hand = served.source.holds_encoded(part)
        content = (
            served.source.encoded(part) if at_hand else await anyio.to_thread.run_sync(served.source.encoded, part)
        )
        if content is None or not name.endswith(".js"):
            return not_found()
        # The end of the base64 holds gzip's own checksum and length.
        tag = content[-24:-4].decode("ascii").replace('"', "")
        return send_bytes(request, content, tag, "text/javascript; charset=utf-8")

    async def media(request: Request) -> Response:
        if served.media is None:
            return not_found()
        found = await anyio.to_thread.run_sync(partial(served.media.find, str(request.path_params["name"])))
        return not_found() if found is None else await send_file(request, *found)

    routes = [
        Route("/", index),
        Route("/index.html", index),
        Route("/page/{name:path}", page),
        Route("/shards/{name:path}", shard),
        Route("/media/{name:path}", media),
        *endpoints.routes(),
    ]
    return Guard(
        Starlette(routes=routes, exception_handlers={UserError: _user_error, HTTPException: _http_error}), access
    )


async def _user_error(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)
