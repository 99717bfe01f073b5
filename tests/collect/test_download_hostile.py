"""Whatever a server sends, `download` ends in time with the right files, or with one sentence that names the file."""

import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import collect.download.http
import collect.download.published
import collect.download.run
from collect.download.config import DownloadConfig
from collect.download.http import Patience, fetch
from collect.download.run import download
from collect.errors import UserError
from collect.printable import printable
from tests.collect.file_server import zip_bytes
from tests.collect.hostile_server import HostileServer, Reply, hostile

ANNOTATIONS = json.dumps({f"video_{i}": {"metadata": {"video_id": f"video_{i}"}} for i in range(40)}).encode()
CUTS = json.dumps({f"video_{i}": i for i in range(40)}).encode()
FILES = {
    "zip_data/train_annotations.zip": zip_bytes({"train.json": ANNOTATIONS}, compression=zipfile.ZIP_DEFLATED),
    "misc/cut_frame_mapping_train.json": CUTS,
}
MOST = 1 << 20
ESCAPE = "\x1b[31m\x07"
pytestmark = pytest.mark.usefixtures("pauses")

IMPATIENT = Patience(timeout_s=0.3, attempts=2)

# fmt: off
STATUSES = st.sampled_from([
    "200 OK", "206 Partial Content", "201 Created", "204 No Content", "301 Moved", "302 Found", "307 Go", "304 Same",
    "416 No", "429 Slow", "503 Busy", f"500 {ESCAPE}", "400 Bad", "206 \x9b31m", "999 What", "0 ?", "-1 x", "x y",
])
NUMBERS = st.sampled_from([
    "{size}", "{rest}", "{start}", "0", "-1", "1", "7", "999999999999", "9" * 30, "9" * 5000, "a", "", "1, 2", "\u0663",
    "+5", "0x10", "1_000", " 12 ", "1e3",
])
PAUSES = st.sampled_from([
    "0", "2", "-3", "99999", "9" * 400, "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 1 Jan 9999", "\u00fc",
])
PLACES = st.sampled_from([
    "/", "{size}", "file:///etc/passwd", "http://[::1", "", "ftp://127.0.0.1/a", "http://127.0.0.1:1/", "//", "?x",
    "http://127.0.0.1:99999999/", f"http://{'a' * 80}.localhost/", f"/{ESCAPE}", "/misc/cut_frame_mapping_train.json",
    "http://user:word@127.0.0.1/", "data:,x",
])
OTHERS = st.sampled_from([
    'ETag: "v"', "ETag: W/x", "ETag: a\r\n b", f'ETag: "{ESCAPE}"', "ETag: " + "x" * 9999, "ETag: \u00e9",
    "Last-Modified: yesterday", "Content-Encoding: gzip", "Content-Encoding:", "Connection: keep-alive",
    "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "no colon", ": nameless", "\x00: \x00",
    "Content-Range: bytes */5", "Content-Range: lines 1-2/3", "Content-Range:", "Content-Range: \u00fc",
])
CHUNKS = (
    b"-1\r\n" + b"x" * 3000, b"-5\r\nabc", b"zz\r\n", b"5\r\nab", b"0\r\n" + b"a: b\r\n" * 400_000, b"f" * 80_000,
)
RAW = st.sampled_from([
    b"", b"\r\n" * 9, b"SSH-2.0-x\r\n", b"HTTP/1.1 200\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"\xff" * 70_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300, b"\x1b]0;owned\x07",
    *(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk for chunk in CHUNKS),
])
# fmt: on
HEADERS = st.one_of(
    NUMBERS.map(lambda number: f"Content-Length: {number}"),
    st.just("Content-Length: {rest}"),
    st.just("Content-Range: bytes {start}-{last}/{size}"),
    st.builds("Content-Range: bytes {}-{}/{}".format, NUMBERS, NUMBERS, st.one_of(NUMBERS, st.just("*"))),
    PLACES.map(lambda place: f"Location: {place}"),
    PAUSES.map(lambda text: f"Retry-After: {text}"),
    OTHERS,
)
BODIES = st.sampled_from(["rest", "rest", "rest", "whole", "half", "half", "none", "more", "more", "endless"])
REPLIES = st.one_of(
    st.builds(Reply, status=STATUSES, headers=st.lists(HEADERS, max_size=5), body=BODIES),
    st.builds(Reply, headers=st.lists(HEADERS, min_size=1, max_size=4), body=BODIES),
    st.builds(
        Reply,
        status=st.just("206 Partial Content"),
        headers=st.lists(HEADERS, max_size=3).map(lambda lines: ["Content-Range: bytes {start}-{last}/{size}", *lines]),
        body=BODIES,
    ),
    RAW.map(lambda raw: Reply(raw=raw)),
)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile(FILES) as state:
        yield state


@pytest.fixture(scope="module")
def pauses() -> Iterator[list[float]]:
    """Pauses in seconds that were to be made; none is."""
    asked: list[float] = []

    class Clock:
        sleep = staticmethod(asked.append)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setattr(collect.download.http, "time", Clock)
        patch.setattr(collect.download.published, "MOST_ARCHIVE_BYTES", MOST)
        patch.setattr(collect.download.published, "MOST_JSON_BYTES", MOST)
        yield asked


@settings(max_examples=50)
@given(replies=st.lists(REPLIES, min_size=1, max_size=6))
def test_the_right_files_or_one_sentence(
    server: HostileServer, pauses: list[float], tmp_path_factory: pytest.TempPathFactory, replies: list[Reply]
) -> None:
    require_good_end(server, pauses, tmp_path_factory.mktemp("data"), replies)


@pytest.mark.slow
@settings(max_examples=1000)
@given(replies=st.lists(REPLIES, min_size=1, max_size=8))
def test_the_right_files_or_one_sentence_at_length(
    server: HostileServer, pauses: list[float], tmp_path_factory: pytest.TempPathFactory, replies: list[Reply]
) -> None:
    require_good_end(server, pauses, tmp_path_factory.mktemp("data"), replies)


def require_good_end(server: HostileServer, pauses: list[float], folder: Path, replies: list[Reply]) -> None:
    server.replies = list(replies)
    config = DownloadConfig(
        split=("train",),
        parts=("annotations", "cut_frames"),
        out=folder,
        base_url=server.url,
        timeout_s=2.0,
        attempts=2,
    )
    pauses.clear()
    begun = time.monotonic()
    try:
        download(config)
    except UserError as error:
        message = str(error)
        assert printable(message, len(message)) == message
        assert server.url in message or str(folder) in message
        assert len(message) < 1500
        assert sum(path.stat().st_size for path in folder.rglob("*")) < 4 * MOST
    else:
        assert json.loads((folder / "cut_frame_mapping_train.json").read_bytes()) == json.loads(CUTS)
        assert (folder / "annotations" / "train.json").read_bytes() == ANNOTATIONS
    assert time.monotonic() - begun < 30
    assert all(pause <= collect.download.http.LONGEST_ASKED_S for pause in pauses)


@pytest.mark.parametrize("body", ["drip", "silence"])
@pytest.mark.parametrize("at_headers", [True, False])
def test_a_server_that_drips_is_given_up(server: HostileServer, tmp_path: Path, body: str, at_headers: bool) -> None:
    reply = Reply(status="200 OK", headers=("a: b",) if at_headers else ("Content-Length: 5000",), body=body)
    server.replies = [reply] * 2
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"broke off 2 times .*(timed out|in 0\.3 s)"):
        fetch(f"{server.url}/misc/cut_frame_mapping_train.json", tmp_path / "a", IMPATIENT, MOST, lambda *_: None)
    assert time.monotonic() - begun < 5
    server.replies = []


def outcome(server: HostileServer, target: Path, *replies: Reply) -> str:
    """Message of the failure, or the empty text where the file arrived."""
    server.replies, server.n_requests = list(replies), 0
    try:
        fetch(f"{server.url}/misc/cut_frame_mapping_train.json", target, IMPATIENT, MOST, lambda *_: None)
    except UserError as error:
        return str(error)
    finally:
        server.replies = []
    assert target.read_bytes() == CUTS
    return ""


HALF = Reply(headers=("Content-Length: {size}", 'ETag: "v"'), body="half")
RANGE = "Content-Range: bytes {start}-{last}/{size}"


@pytest.mark.parametrize(
    "second",
    [
        Reply(status="206 P", headers=(RANGE, 'ETag: "v"'), body="more"),
        Reply(status="206 P", headers=(RANGE, 'ETag: "v"'), body="endless"),
        Reply(status="206 P", headers=(RANGE, "Content-Length: 99999", 'ETag: "v"'), body="endless"),
        Reply(status="206 P", headers=("Content-Range: bytes {start}-{size}/{size}", 'ETag: "v"')),
        Reply(status="206 P", headers=("Content-Range: bytes {last}-{start}/{size}", 'ETag: "v"')),
        Reply(status="206 P", headers=('ETag: "v"',)),
        Reply(status="206 P", headers=(RANGE, 'ETag: "v"', "Content-Encoding: gzip")),
    ],
)
def test_a_wrong_part_costs_what_has_arrived_and_no_more(server: HostileServer, tmp_path: Path, second: Reply) -> None:
    assert outcome(server, tmp_path / "a", HALF, second) == ""
    assert server.n_requests == 3


def test_a_body_without_an_end_is_refused_at_the_limit(server: HostileServer, tmp_path: Path) -> None:
    message = outcome(server, tmp_path / "a", Reply(body="endless"))
    assert f"at most {MOST:,}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_length_beyond_the_limit_is_refused_before_anything_is_written(server: HostileServer, tmp_path: Path) -> None:
    message = outcome(server, tmp_path / "a", Reply(headers=("Content-Length: 999999999",)))
    assert "has 999,999,999 bytes or more" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("", "does not say where"),
        ("Location: file:///etc/passwd", "not followed"),
        ("Location: ftp://127.0.0.1/x", "not followed"),
        ("Location: http://[::1", "Invalid IPv6"),
        (f"Location: http://{'a' * 80}.localhost/", "is not an address"),
        ("Location: /misc/cut_frame_mapping_train.json", "more than 10 redirects"),
        (f"Location: ftp://h/{ESCAPE}", "not followed"),
    ],
)
def test_a_redirect_that_leads_nowhere(server: HostileServer, tmp_path: Path, location: str, reason: str) -> None:
    message = outcome(server, tmp_path / "a", *[Reply(status="302 Found", headers=(location,) * bool(location))] * 22)
    assert reason in message
    assert "\x1b" not in message


def test_a_redirect_within_the_server_is_followed(server: HostileServer, tmp_path: Path) -> None:
    moved = Reply(status="302 Found", headers=("Location: cut_frame_mapping_train.json",), body="endless")
    assert outcome(server, tmp_path / "a", moved, moved) == ""
    assert server.n_requests == 3


@pytest.mark.parametrize(
    ("text", "pause"), [("7", 7.0), ("-7", 1.0), ("soon", 1.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 1.0), ("0", 1.0)]
)
def test_the_pause_that_a_server_asks_for_is_made(
    server: HostileServer, pauses: list[float], tmp_path: Path, text: str, pause: float
) -> None:
    pauses.clear()
    assert outcome(server, tmp_path / "a", Reply(status="503 Busy", headers=(f"Retry-After: {text}",))) == ""
    assert pauses == [pause]


@pytest.mark.parametrize("text", ["301", "9" * 18, "Fri, 01 Jan 2999 00:00:00 GMT"])
def test_a_pause_that_is_too_long_is_left_to_the_user(server: HostileServer, tmp_path: Path, text: str) -> None:
    message = outcome(server, tmp_path / "a", Reply(status="429 Slow", headers=(f"Retry-After: {text}",)))
    assert "asks for a pause of" in message
    assert "run the same command again then" in message


def test_a_servers_words_reach_the_terminal_escaped(server: HostileServer, tmp_path: Path) -> None:
    message = outcome(server, tmp_path / "a", Reply(status=f"404 {ESCAPE}gone"))
    assert "404 \\x1b[31m\\x07gone" in message


def test_ever_one_byte_more_is_not_put_up_with_for_ever(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect.download.http, "MOST_CONNECTIONS", 5)
    content = server.files["misc/cut_frame_mapping_train.json"]
    first = Reply(raw=b'HTTP/1.1 200 OK\r\nETag: "v"\r\nContent-Length: %d\r\n\r\n' % len(content) + content[:1])
    drops = [
        Reply(
            raw=b'HTTP/1.1 206 P\r\nETag: "v"\r\nContent-Range: bytes %d-%d/%d\r\n\r\n%c'
            % (i, len(content) - 1, len(content), content[i])
        )
        for i in range(1, 20)
    ]
    assert "broke off too often after 5 bytes" in outcome(server, tmp_path / "a", first, *drops)


@pytest.mark.parametrize("kind", ["folder", "device"])
def test_notes_that_are_no_file(server: HostileServer, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.partial").write_bytes(b"other")
    notes = tmp_path / "a.partial.json"
    if kind == "folder":
        notes.mkdir()
        assert "a.partial cannot be written (Is a directory)" in outcome(server, tmp_path / "a")
    else:
        notes.symlink_to("/dev/zero")
        assert outcome(server, tmp_path / "a") == ""
