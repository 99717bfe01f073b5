"""The endpoints: the run as JSON, everything paged, and the notes. `browse.server.openapi` describes them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import anyio.to_thread
import numpy as np
from jaxtyping import Int64
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from browse.names import part_of
from browse.notes import ConflictError, Notes
from browse.server.guard import Access
from browse.server.openapi import description
from browse.server.tables import FORMATS, table_of
from browse.shards import Column, Shard
from browse.sources import Source
from collect.errors import UserError

MOST_ROWS = 1000
"""Of one answer."""
MOST_BODY_BYTES = 256 << 10
SLOWEST_BODY_S = 10.0
"""For the body of a request to arrive."""
MOST_ORDERS = 64
"""Sorted orders that are kept."""
_EMPTY = Shard()


class Endpoints:
    """What answers under `/api/`.

    Args:
        name: of the run.
        source: its shards.
        notes: its notes.
        access: who is let in.
    """

    def __init__(self, name: str, source: Source, notes: Notes, access: Access) -> None:
        self._name = name
        self._source = source
        self._notes = notes
        self._access = access
        self._orders: dict[tuple[int, str, str, bool], Int64[np.ndarray, " row"]] = {}
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/healthz", self._healthz),
            Route("/openapi.json", self._openapi),
            Route("/api/session", self._session),
            Route("/api/notes", self._read_notes, methods=["GET"]),
            Route("/api/notes", self._write_note, methods=["POST"]),
            Route("/api/columns/{sae}/latents", self._columns),
            Route("/api/latents/{sae}/{latent:int}", self._latent),
            Route("/api/videos", self._videos),
            Route("/api/videos/{video:path}", self._video),
            Route("/api/tasks", self._tasks),
            Route("/api/export/{sae}/latents.{format}", self._export),
        ]

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"ok": True})

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(description(self._name))

    async def _session(self, _: Request) -> Response:
        return JSONResponse(
            {
                "served": True,
                "run": self._name,
                "token_required": self._access.token is not None,
                "csrf": self._access.csrf,
                "version": await _in_thread(lambda: self._source.version),
            }
        )

    async def _read_notes(self, _: Request) -> Response:
        return JSONResponse(await _in_thread(self._notes.merged))

    async def _write_note(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return _error(415, "A note is sent as application/json.")
        try:
            body = await asyncio.wait_for(_body(request), SLOWEST_BODY_S)
        except TimeoutError:
            return _error(408, "The note did not arrive in time.")
        if body is None:
            return _error(413, f"A request has at most {MOST_BODY_BYTES:,} bytes.")
        try:
            content: object = json.loads(body)
        except (ValueError, RecursionError):
            return _error(400, "The body is not JSON.")
        fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
        kind, key, version = fields.get("kind"), fields.get("key"), fields.get("version")
        if not isinstance(kind, str) or not isinstance(key, str) or "value" not in fields:
            return _error(400, "A note has `kind`, `key`, `value` and `version`.")
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            return _error(400, "`version` is the number of the version that was changed, 0 for a new note.")
        try:
            entry = await _in_thread(partial(self._notes.write, kind, key, fields["value"], version))
        except ConflictError as conflict:
            return JSONResponse(conflict.current.to_json(), status_code=409)
        return JSONResponse(entry.to_json())

    async def _columns(self, request: Request) -> Response:
        sae, query = str(request.path_params["sae"]), request.query_params
        wanted = [name for name in query.get("columns", "").split(",") if name]
        offset, limit = _number(request, "offset", 0), _number(request, "limit", 100, most=MOST_ROWS)
        sort, is_falling = query.get("sort"), query.get("desc", "0") not in ("0", "false", "")
        make = partial(self._page_of_columns, sae, wanted, offset, limit, sort, is_falling)
        return await self._answer(make, f"{sae}/latents")

    def _page_of_columns(
        self, sae: str, wanted: Sequence[str], offset: int, limit: int, sort: str | None, is_falling: bool
    ) -> dict[str, Any] | None:
        shard = self._source.shard(f"{sae}/latents")
        if shard is None:
            return None
        for name in (*wanted, *([] if sort is None else [sort])):
            if name not in shard.columns:
                raise UserError(f"There is no column {name[:100]!r}: /api/columns/SAE/latents lists all of them.")
        if sort is None:
            rows = np.arange(offset, min(offset + limit, shard.n_rows))
        else:
            rows = self._order(sae, shard, sort, is_falling)[offset : offset + limit]
        names = wanted or list(shard.columns)
        return {
            "n_rows": shard.n_rows,
            "offset": offset,
            "columns": {name: taken(shard.columns[name], rows).decoded() for name in names},
        }

    def _order(self, sae: str, shard: Shard, sort: str, is_falling: bool) -> Int64[np.ndarray, " row"]:
        key = (self._source.version, sae, sort, is_falling)
        with self._lock:
            if key in self._orders:
                return self._orders[key]
        order = ordered(shard.columns[sort], is_falling=is_falling)
        with self._lock:
            self._orders[key] = order
            while len(self._orders) > MOST_ORDERS:
                del self._orders[next(iter(self._orders))]
        return order

    async def _latent(self, request: Request) -> Response:
        sae, latent = str(request.path_params["sae"]), int(request.path_params["latent"])
        overview = f"{sae}/latents"
        if not self._source.holds(overview):
            return await self._answer(partial(self._one_latent, sae, latent))
        shard = self._source.shard(overview)
        per_shard = 1 if shard is None else int(shard.meta.get("latents_per_shard", 1))
        return await self._answer(
            partial(self._one_latent, sae, latent), overview, f"{sae}/latent/{latent // per_shard}"
        )

    def _one_latent(self, sae: str, latent: int) -> dict[str, Any] | None:
        overview = self._source.shard(f"{sae}/latents")
        if overview is None or not 0 <= latent < overview.n_rows:
            return None
        per_shard = int(overview.meta["latents_per_shard"])
        shard = self._source.shard(f"{sae}/latent/{latent // per_shard}")
        return None if shard is None else cast("dict[str, Any]", shard.columns["json"].values[latent % per_shard])

    async def _videos(self, request: Request) -> Response:
        offset, limit = _number(request, "offset", 0), _number(request, "limit", 100, most=MOST_ROWS)

        def page() -> dict[str, Any]:
            return _rows(self._source.shard("videos") or _EMPTY, offset, limit)

        return await self._answer(page, "videos")

    async def _video(self, request: Request) -> Response:
        name = f"video/{part_of(str(request.path_params['video']))}"

        def one() -> dict[str, Any] | None:
            shard = self._source.shard(name)
            return None if shard is None else dict(shard.meta)

        return await self._answer(one, name)

    async def _tasks(self, request: Request) -> Response:
        offset, limit = _number(request, "offset", 0), _number(request, "limit", 100, most=MOST_ROWS)

        def page() -> dict[str, Any]:
            shard = self._source.shard("tasks") or _EMPTY
            tasks = shard.columns["json"].values if "json" in shard.columns else []
            return {"n_rows": len(tasks), "offset": offset, "tasks": list(tasks[offset : offset + limit])}

        return await self._answer(page, "tasks")

    async def _answer(self, make: Callable[[], dict[str, Any] | None], *shards: str) -> Response:
        """What is made of some shards as JSON; in a thread of its own unless they are at hand."""
        try:
            at_hand = bool(shards) and all(self._source.holds(name) for name in shards)
            content = make() if at_hand else await _in_thread(make)
        except UserError as error:
            return _error(400, str(error))
        return _error(404, "There is nothing of that name.") if content is None else JSONResponse(content)

    async def _export(self, request: Request) -> Response:
        sae, kind = str(request.path_params["sae"]), str(request.path_params["format"])
        chosen, columns = request.query_params.get("latents", "all"), request.query_params.get("columns", "")
        if kind not in FORMATS:
            return _error(404, "What is shown can be had as csv or parquet.")

        def made() -> bytes | None:
            shard = self._source.shard(f"{sae}/latents")
            return None if shard is None else table_of(shard, kind, chosen, columns)

        try:
            content = await _in_thread(made)
        except UserError as error:
            return _error(400, str(error))
        if content is None:
            return _error(404, "There is no such SAE.")
        headers = {"content-disposition": f'attachment; filename="{part_of(sae)}-latents.{kind}"'}
        return Response(content, media_type=FORMATS[kind], headers=headers)


def ordered(column: Column, *, is_falling: bool) -> Int64[np.ndarray, " row"]:
    """The rows in the order of a column, missing values last and equal ones by row."""
    if column.kind in ("str", "dict", "json"):
        texts = column.decoded()
        known = [place for place, text in enumerate(texts) if text is not None]
        known.sort(key=lambda place: str(texts[place]), reverse=is_falling)
        return np.array([*known, *(place for place, text in enumerate(texts) if text is None)], dtype=np.int64)
    numbers = column.numbers()
    return np.argsort(-numbers if is_falling else numbers, kind="stable")


def taken(column: Column, rows: Int64[np.ndarray, " row"]) -> Column:
    """Some rows of a column."""
    values = column.values
    picked = [values[row] for row in rows.tolist()] if isinstance(values, list) else values[rows]
    return Column(kind=column.kind, values=picked, extra=column.extra)


def _rows(shard: Shard, offset: int, limit: int) -> dict[str, Any]:
    rows = np.arange(offset, max(offset, min(offset + limit, shard.n_rows)))
    columns = {name: taken(column, rows).decoded() for name, column in shard.columns.items()}
    return {"n_rows": shard.n_rows, "offset": offset, "columns": columns}


async def _body(request: Request) -> bytes | None:
    """The body; None if it is too large."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _number(request: Request, name: str, absent: int, most: int = 2**31) -> int:
    text = request.query_params.get(name, "")
    if not text:
        return absent
    if not (text.isascii() and text.isdigit() and len(text) < 11):
        raise UserError(f"{name} is a whole number from 0 on.")
    return min(int(text), most)


async def _in_thread(make: Callable[[], Any]) -> Any:
    return await anyio.to_thread.run_sync(make)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
