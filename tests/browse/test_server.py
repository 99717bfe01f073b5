"""The server through real sockets: what it gives, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from browse.notes import Notes
from browse.server.files import parse_range
from browse.server.guard import CSRF_HEADER, Access
from browse.shards import decode
from tests.browse.conftest import Running, serving
from tests.small_run import D_SAE, SAE_NAME
from tests.steer.finished_run import BALL, BALL_LABEL


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


# --- Who is let in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "", "a@127.0.0.1:{port}"]
)
def test_other_names_for_this_machine_are_refused(running: Running, host: str) -> None:
    answer = raw(running, get("/shards/run.js", host.format(port=running.access.port)))
    assert answer.split(b" ")[1] in (b"421", b"400")
    assert b"videoSae" not in answer


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_this_machine_s_own_names_are_known(running: Running, host: str) -> None:
    answer = raw(running, get("/healthz", f"{host}:{running.access.port}"))
    assert answer.startswith(b"HTTP/1.1 200")


def test_two_host_headers_are_refused(running: Running) -> None:
    good = f"127.0.0.1:{running.access.port}"
    assert raw(running, get("/", good, "Host: evil.example")).split(b" ")[1] in (b"421", b"400")


def test_other_websites_cannot_load_anything(running: Running) -> None:
    with running.client() as client:
        for site in ("cross-site", "same-site"):
            for path in ("/shards/run.js", "/api/session", "/api/notes", "/media/clips/video_0.mp4"):
                script = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
                assert client.get(path, headers=script).status_code == 403
            link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
            assert client.get("/", headers=link).status_code == 200
            frame = {**link, "sec-fetch-dest": "iframe"}
            assert client.get("/", headers=frame).status_code == 403


def test_only_reading_and_posting(running: Running) -> None:
    with running.client() as client:
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
            assert client.request(method, "/api/notes").status_code == 405


TRAVERSALS = [
    "..%2f..%2fsae/random/cfg.json",
    "../../sae/random/cfg.json",
    "%2e%2e/%2e%2e/config.json",
    "..\\..\\config.json",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "a%00.js",
    "....//config.json",
    "clips/../../activations/config.json",
    "features/random/../../random/config.json",
    "stills/..%2f..%2fx/0.jpg",
    "clips/%2e%2e%2f%2e%2e.mp4",
]


@pytest.mark.parametrize("below", ["page", "shards", "media"])
@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out(running: Running, below: str, path: str) -> None:
    answer = raw(running, get(f"/{below}/{path}", f"127.0.0.1:{running.access.port}"))
    assert answer.split(b" ")[1] in (b"404", b"400")
    assert b"root:" not in answer


def test_no_link_leads_out(copy: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.js"
    secret.write_text("secret")
    page = tmp_path / "page"
    page.mkdir()
    (page / "index.html").write_text("hello")
    (page / "out.js").symlink_to(secret)
    (page / "folder").symlink_to(tmp_path)
    media = copy / "features" / SAE_NAME / "media"
    (media / "out.jpg").symlink_to(secret)
    with serving(copy, page=page) as running, running.client() as client:
        for path in ("/page/out.js", "/page/folder/secret.js", f"/media/features/{SAE_NAME}/out.jpg"):
            assert client.get(path).status_code == 404, path
        assert client.get(f"/media/features/{SAE_NAME}/ball.jpg").status_code == 200


def test_a_run_that_others_can_reach_wants_its_token(copy: Path) -> None:
    with serving(copy, token=True) as running, running.client() as client:
        token = running.access.token
        assert token is not None
        assert len(token) >= 32
        assert token in running.access.url
        for path in ("/", "/shards/run.js", "/api/notes", "/?token=wrong", "/healthz"):
            assert client.get(path).status_code == 401, path
        entered = client.get(f"/?token={token}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        assert "httponly" in entered.headers["set-cookie"].lower()
        assert client.get("/shards/run.js").status_code == 200  # with the cookie
        assert client.get("/api/session").json()["token_required"] is True


def test_names_that_a_server_for_others_answers_to() -> None:
    open_to_all = Access(host="0.0.0.0", port=80, token="t", csrf="c")
    assert open_to_all.knows_host("192.168.0.7:80")
    assert open_to_all.knows_host("192.168.0.7")
    assert open_to_all.knows_host(f"{socket.gethostname()}:80")
    assert not open_to_all.knows_host("evil.example:80")
    assert not open_to_all.knows_host("192.168.0.7:81")
    local = Access(host="127.0.0.1", port=80, token=None, csrf="c")
    assert not local.knows_host("192.168.0.7:80")


def test_only_the_right_address_is_shown() -> None:
    assert Access(host="127.0.0.1", port=80, token=None, csrf="c").url == "http://127.0.0.1:80/"
    assert Access(host="::1", port=80, token="t", csrf="c").url == "http://[::1]:80/?token=t"


# --- Ranges and slow clients --------------------------------------------------------------------------------------


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
