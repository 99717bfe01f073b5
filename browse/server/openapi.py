"""The description of the endpoints, as OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from browse.notes import KINDS

_SAE = {"name": "sae", "in": "path", "required": True, "schema": {"type": "string"}, "description": "`key` of the SAE"}
_OFFSET = {
    "name": "offset",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "default": 0},
    "description": "first row",
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 0, "maximum": 1000, "default": 100},
    "description": "most rows",
}
_ENTRY = {
    "type": "object",
    "required": ["kind", "key", "value", "version"],
    "properties": {
        "kind": {"enum": list(KINDS)},
        "key": {"type": "string", "maxLength": 1000},
        "value": {"description": "any JSON; null deletes"},
        "version": {"type": "integer", "minimum": 0},
    },
}
_PAGE = {
    "type": "object",
    "properties": {
        "n_rows": {"type": "integer"},
        "offset": {"type": "integer"},
        "columns": {"type": "object", "additionalProperties": {"type": "array"}},
    },
}


def description(run: str) -> dict[str, Any]:
    """The whole document.

    Args:
        run: name of the run.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"video-sae browse: {run}",
            "version": "1",
            "description": "What the page shows, as JSON. The columns are described in `S/latents` (`meta.columns`).",
        },
        "components": {"schemas": {"Entry": _ENTRY, "Page": _PAGE}},
        "paths": {
            "/healthz": {"get": _get("Whether the server answers", {"type": "object"})},
            "/openapi.json": {"get": _get("This document", {"type": "object"})},
            "/api/session": {
                "get": _get("What changes need (`csrf`), and whether the run has changed (`version`)", {})
            },
            "/api/notes": {
                "get": _get("All notes, names, judgements, saved views and answers of blind tests", {"type": "object"}),
                "post": _post(),
            },
            "/api/columns/{sae}/latents": {
                "get": _get(
                    "Columns of the latents of an SAE, sorted and paged",
                    {"$ref": "#/components/schemas/Page"},
                    _SAE,
                    _query("columns", "names with commas between them; all of them if not given"),
                    _OFFSET,
                    _LIMIT,
                    _query("sort", "column to sort by"),
                    _query("desc", "1: the largest first"),
                )
            },
            "/api/latents/{sae}/{latent}": {
                "get": _get("Everything about one latent", {"type": "object"}, _SAE, _path("latent", "integer"))
            },
            "/api/videos": {"get": _get("The videos", {"$ref": "#/components/schemas/Page"}, _OFFSET, _LIMIT)},
            "/api/videos/{video}": {"get": _get("One video", {"type": "object"}, _path("video", "string"))},
            "/api/tasks": {"get": _get("The counting questions", {"type": "object"}, _OFFSET, _LIMIT)},
            "/api/export/{sae}/latents.{format}": {
                "get": _get(
                    "What is shown, as a file",
                    None,
                    _SAE,
                    {**_path("format", "string"), "schema": {"enum": ["csv", "parquet"]}},
                    _query("latents", "numbers with commas between them, or all"),
                    _query("columns", "names with commas between them; all of them if not given"),
                )
            },
        },
    }


def _get(summary: str, schema: dict[str, Any] | None, *parameters: dict[str, Any]) -> dict[str, Any]:
    content = {"application/octet-stream": {}} if schema is None else {"application/json": {"schema": schema}}
    return {
        "summary": summary,
        "parameters": list(parameters),
        "responses": {"200": {"description": summary, "content": content}, "404": {"description": "no such thing"}},
    }


def _post() -> dict[str, Any]:
    schema = {"application/json": {"schema": {"$ref": "#/components/schemas/Entry"}}}
    return {
        "summary": "Write, change or delete one; `version` is the one that was changed, 0 for a new one",
        "parameters": [
            {
                "name": "X-Video-Sae",
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": "`csrf` of /api/session",
            }
        ],
        "requestBody": {"required": True, "content": schema},
        "responses": {
            "200": {"description": "what it holds now", "content": schema},
            "403": {"description": "another website asks, or X-Video-Sae is missing"},
            "409": {"description": "somebody else has changed it since; what it holds now", "content": schema},
        },
    }


def _query(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": text}


def _path(name: str, kind: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": kind}}
