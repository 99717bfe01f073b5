import errno
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from collect.download.http import Patience, arrived_bytes, fetch, remote_size
from collect.errors import UserError
from tests.collect.file_server import FileServer, serving

CONTENT = random.Random(0).randbytes(300_000)
HASTY = Patience(timeout_s=5.0, attempts=3, first_pause_s=0.0)
MOST = 1_000_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving({"a.zip": CONTENT}) as state:
        yield state


def get(server: FileServer, target: Path) -> list[tuple[int, int | None]]:
    told: list[tuple[int, int | None]] = []
    fetch(f"{server.url}/a.zip", target, HASTY, MOST, lambda n, total: told.append((n, total)))
    return told


def ranges(server: FileServer) -> list[str | None]:
    return [asked for _, _, asked in server.log]


def test_a_file_arrives(server: FileServer, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "a.zip"
    told = get(server, target)
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["a.zip"]
    assert (told[0], told[-1]) == ((0, 300_000), (300_000, 300_000))


def test_a_file_that_is_there_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"whole")
    get(server, tmp_path / "a.zip")
    assert server.log == []


def test_only_the_rest_is_asked_for_after_a_cut(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000, 2000, 100_000]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=1000-", "bytes=3000-", "bytes=103000-"]


def test_any_number_of_cuts_is_put_up_with_while_each_connection_brings_something(
    server: FileServer, tmp_path: Path
) -> None:
    chance = random.Random(1)
    server.cuts = [chance.randrange(1, 30_000) for _ in range(40)]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_what_has_arrived_serves_the_next_run(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [50_000, 0, 0, 0]
    with pytest.raises(UserError, match=r"a\.zip broke off 3 times in a row after 50,000 bytes .* goes on"):
        get(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    assert arrived_bytes(tmp_path / "a.zip") == 50_000
    told = get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert (ranges(server)[-1], told[0]) == ("bytes=50000-", (50_000, 300_000))


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_server_that_ignores_ranges_begins_anew(server: FileServer, tmp_path: Path, etag: str | None) -> None:
    server.knows_ranges, server.etag, server.cuts = False, etag, [1000]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_two_versions_of_a_file_are_not_mixed(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 0, 0]
    with pytest.raises(UserError):
        get(server, tmp_path / "a.zip")
    server.files["a.zip"], server.etag = bytes(reversed(CONTENT)), '"v2"'
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == bytes(reversed(CONTENT))


def test_versions_without_a_mark_are_told_apart_by_size(server: FileServer, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [1000, 0, 0, 0]
    with pytest.raises(UserError):
        get(server, tmp_path / "a.zip")
    server.files["a.zip"] = CONTENT[::2]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[::2]


def test_a_file_that_has_become_shorter_than_what_arrived(server: FileServer, tmp_path: Path) -> None:
    server.etag, server.cuts = None, [200_000, 0, 0, 0]
    with pytest.raises(UserError):
        get(server, tmp_path / "a.zip")
    server.files["a.zip"] = CONTENT[:1000]  # the server answers 416
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT[:1000]


def test_a_part_of_another_address_is_not_gone_on_with(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(b"other")
    notes = {"url": "http://127.0.0.1/b.zip", "size": 300_000, "mark": '"v1"'}
    (tmp_path / "a.zip.partial.json").write_text(json.dumps(notes))
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server) == [None]


@pytest.mark.parametrize("text", ["", "[]", '{"url": 1}'])
def test_unreadable_notes_mean_that_it_begins_anew(server: FileServer, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.zip.partial").write_bytes(b"other")
    (tmp_path / "a.zip.partial.json").write_text(text)
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_the_last_byte_may_arrive_just_before_a_crash(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(CONTENT)
    notes = {"url": f"{server.url}/a.zip", "size": 300_000, "mark": '"v1"'}
    (tmp_path / "a.zip.partial.json").write_text(json.dumps(notes))
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.log == []


def test_a_length_that_is_too_large_is_not_believed(server: FileServer, tmp_path: Path) -> None:
    server.length_error = 7
    with pytest.raises(UserError, match=r"broke off 3 times in a row .*300,007|fewer bytes"):
        get(server, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_an_answer_to_another_range_is_not_used(server: FileServer, tmp_path: Path) -> None:
    server.cuts, server.range_error = [1000], 1
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=1000-", None]


def test_a_body_without_a_length_is_taken_as_it_ends(server: FileServer, tmp_path: Path) -> None:
    server.has_length = False
    assert get(server, tmp_path / "a.zip")[-1] == (300_000, None)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_in_trouble_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_stays_in_trouble(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503] * 3
    with pytest.raises(UserError, match="the server answers 503"):
        get(server, tmp_path / "a.zip")


def test_a_file_that_is_not_there(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"/b\.zip cannot be fetched: the server answers 404 .*check --base-url"):
        fetch(f"{server.url}/b.zip", tmp_path / "b.zip", HASTY, MOST, lambda *_: None)
    with pytest.raises(UserError, match="404"):
        remote_size(f"{server.url}/b.zip", HASTY, MOST)
    assert len(server.log) == 2  # asking again would be no use


def test_size(server: FileServer) -> None:
    assert remote_size(f"{server.url}/a.zip", HASTY, MOST) == 300_000
    server.has_length = False
    assert remote_size(f"{server.url}/a.zip", HASTY, MOST) is None


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.zip"
        with pytest.raises(UserError, match=r"a\.zip cannot be reached \(.*refused.*\): check the network"):
            remote_size(url, HASTY, MOST)
        with pytest.raises(UserError, match=r"a\.zip broke off 3 times .*refused.*check the network"):
            fetch(url, tmp_path / "a.zip", HASTY, MOST, lambda *_: None)


def test_a_server_that_falls_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and says nothing
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(UserError, match="timed out"):
            fetch(url, tmp_path / "a.zip", Patience(timeout_s=0.1, attempts=1), MOST, lambda *_: None)


def test_a_full_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    def open_on_full_disk(self: Path, mode: str = "r", *args: object, **kwargs: object) -> object:
        return real_open(Path("/dev/full"), "ab") if mode == "ab" else real_open(self, mode, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_on_full_disk)
    with pytest.raises(UserError, match=r"The disk is full while .*a\.zip is being fetched: make room"):
        get(server, tmp_path / "a.zip")
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    get(server, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_place_where_one_may_not_write(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"cannot be written .*Permission denied"):
        get(server, tmp_path / "a.zip")
