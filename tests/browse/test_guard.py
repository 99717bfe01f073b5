"""Who is let in: other names for this machine, other websites, paths and links that lead out, tokens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from browse.server.guard import Access
from tests.browse.conftest import Running, get, raw, serving
from tests.small_run import SAE_NAME


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
