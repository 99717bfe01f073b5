"""The server through real sockets: what it gives, and what it refuses."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest

from browse.notes import Notes
from browse.server.guard import CSRF_HEADER
from browse.shards import decode
from tests.browse.conftest import Running, post, serving
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.finished_run import BALL, BALL_LABEL


def test_the_page_and_its_files_are_served_with_their_headers(copy: Path, tmp_path: Path) -> None:
    page = tmp_path / "page"
    (page / "vendor").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>")
    (page / "app.js").write_text("1;")
    (page / "vendor" / "x.css").write_text("a{}")
    (page / "secret.key").write_text("no")
    with serving(copy, page=page) as running, running.client() as client:
        for path, kind in (
            ("/", "text/html"),
            ("/index.html", "text/html"),
            ("/page/app.js", "text/javascript"),
            ("/page/vendor/x.css", "text/css"),
        ):
            answer = client.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].startswith(kind)
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"
            assert client.get(path, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert client.get("/page/secret.key").status_code == 404
        assert client.head("/page/app.js").headers["content-length"] == "2"


def test_shards_are_served_as_they_are_exported(running: Running) -> None:
    with running.client() as client:
        answer = client.get("/shards/run.js")
        name, shard = decode(answer.content)
        assert name == "run"
        assert [sae["key"] for sae in shard.meta["saes"]] == [SAE_NAME]
        assert str(running.served.name) == shard.meta["name"]
        assert client.get("/shards/run.js", headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert decode(client.get(f"/shards/{SAE_NAME}/latents.js").content)[1].n_rows == D_SAE
        for missing in ("nothing", "run/nothing", f"{SAE_NAME}/latent/99", f"{SAE_NAME}/latent/x", "video/none", "a b"):
            assert client.get(f"/shards/{missing}.js").status_code == 404, missing
        assert client.get("/shards/run").status_code == 404


def test_columns_are_sorted_and_paged(running: Running) -> None:
    base = f"/api/columns/{SAE_NAME}/latents"
    with running.client() as client:
        page = client.get(base, params={"columns": "latent,top_label", "limit": 2, "offset": 3}).json()
        assert page == {
            "n_rows": D_SAE,
            "offset": 3,
            "columns": {"latent": [3, 4], "top_label": [BALL_LABEL, None]},
        }
        best = client.get(
            base, params={"columns": "latent,top_auroc", "sort": "top_auroc", "desc": 1, "limit": 3}
        ).json()
        assert best["columns"]["latent"][:2] == [3, 5]
        assert best["columns"]["top_auroc"][2] is None
        by_text = client.get(base, params={"columns": "top_label", "sort": "top_label", "limit": 3}).json()
        assert by_text["columns"]["top_label"] == ["cup", BALL_LABEL, None]
        everything = client.get(base, params={"limit": 10**9, "columns": "latent"}).json()
        assert everything["columns"]["latent"] == list(range(D_SAE))
        assert client.get(base, params={"sort": "nonsense"}).status_code == 400
        assert client.get(base, params={"offset": "-1"}).status_code == 400
        assert client.get("/api/columns/none/latents").status_code == 404


def test_latents_videos_and_tasks(running: Running) -> None:
    with running.client() as client:
        latent = client.get(f"/api/latents/{SAE_NAME}/{BALL}").json()
        assert latent["latent"] == BALL
        assert latent["associations"][0]["label"] == BALL_LABEL
        assert client.get(f"/api/latents/{SAE_NAME}/{D_SAE}").status_code == 404
        assert client.get("/api/videos", params={"limit": 1}).json()["columns"]["id"] == ["video_0"]
        assert client.get("/api/videos/video_3").json()["id"] == "video_3"
        assert client.get("/api/videos/nothing").status_code == 404
        assert client.get("/api/tasks", params={"limit": 1}).json()["n_rows"] == 3


def test_what_is_shown_as_csv_and_parquet(running: Running) -> None:
    base = f"/api/export/{SAE_NAME}/latents"
    with running.client() as client:
        answer = client.get(f"{base}.csv", params={"latents": "5,3", "columns": "latent,top_label"})
        assert list(csv.reader(io.StringIO(answer.text))) == [["latent", "top_label"], ["5", "cup"], ["3", BALL_LABEL]]
        assert "attachment" in answer.headers["content-disposition"]
        table = pd.read_parquet(io.BytesIO(client.get(f"{base}.parquet").content))
        assert table["latent"].tolist() == list(range(D_SAE))
        assert table["labelled"].tolist() == [number in (3, 5) for number in range(D_SAE)]
        assert table["top_auroc"].isna().sum() == D_SAE - 2
        assert client.get(f"{base}.csv", params={"latents": "99"}).status_code == 400
        assert client.get(f"{base}.csv", params={"latents": "1;rm"}).status_code == 400
        assert client.get(f"{base}.exe").status_code == 404


def test_every_documented_endpoint_is_there_and_every_endpoint_is_documented(running: Running) -> None:
    with running.client() as client:
        document = client.get("/openapi.json").json()
        filled = {
            "{sae}": SAE_NAME,
            "{latent}": "1",
            "{video}": "video_0",
            "{format}": "csv",
        }
        for path in document["paths"]:
            shown = path
            for name, value in filled.items():
                shown = shown.replace(name, value)
            assert client.get(shown).status_code == 200, path
    from browse.server.endpoints import Endpoints

    routes = Endpoints("x", running.served.source, running.served.notes, running.access).routes()
    kinds = {route.path.replace(":int", "").replace(":path", "") for route in routes}
    assert kinds == set(document["paths"])


# --- Notes --------------------------------------------------------------------------------------------------------


def test_notes_are_written_with_the_secret_only(running: Running, copy: Path) -> None:
    body = {"kind": "note", "key": f"{SAE_NAME}:3", "value": "<script>", "version": 0}
    with running.client() as client:
        assert client.get("/api/session").json()["csrf"] == running.access.csrf
        assert client.post("/api/notes", json=body).status_code == 403
        assert post(running, client, body, **{CSRF_HEADER: "wrong"}).status_code == 403
        assert post(running, client, body, origin="http://evil.example").status_code == 403
        assert post(running, client, body, origin="null").status_code == 403
        assert post(running, client, body, **{"sec-fetch-site": "same-site"}).status_code == 403
        assert post(running, client, body, **{"content-type": "text/plain"}).status_code == 415
        assert Notes(copy / "notes").merged()["version"] == 0
        answer = post(running, client, body, origin=running.at, **{"sec-fetch-site": "same-origin"})
        assert answer.json() == {**body, "version": 1}
        assert client.get("/api/notes").json()["notes"] == {f"{SAE_NAME}:3": {"value": "<script>", "version": 1}}


def test_two_people_cannot_write_over_each_other(running: Running) -> None:
    body = {"kind": "note", "key": "a", "value": "one", "version": 0}
    with running.client() as one, running.client() as other:
        assert post(running, one, body).status_code == 200
        refused = post(running, other, {**body, "value": "two"})
        assert (refused.status_code, refused.json()["value"], refused.json()["version"]) == (409, "one", 1)
        assert post(running, other, {**body, "value": "both", "version": 1}).json()["version"] == 2


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"kind": "note", "key": "a", "version": 0},
        {"kind": "note", "key": 3, "value": 1, "version": 0},
        {"kind": "note", "key": "a", "value": 1, "version": "0"},
        {"kind": "note", "key": "a", "value": 1, "version": -1},
        {"kind": "other", "key": "a", "value": 1, "version": 0},
    ],
)
def test_what_is_no_note_is_refused(running: Running, body: object) -> None:
    with running.client() as client:
        assert post(running, client, body).status_code == 400


def test_a_note_that_is_too_large_is_refused(running: Running) -> None:
    with running.client() as client:
        body = {"kind": "note", "key": "a", "value": "x" * 70_000, "version": 0}
        assert post(running, client, body).status_code == 400
        assert post(running, client, {**body, "value": "x" * 300_000}).status_code == 413
