import copy
import errno
import io
import random
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.download import unpack as archive_module
from collect.download.unpack import DamagedArchive, bytes_to_unpack, require_space, unpack
from collect.errors import UserError
from collect.printable import printable
from tests.collect.file_server import zip_bytes

MEMBERS = {
    "set/one.mp4": b"1" * 1000,
    "set/deep/two.mp4": b"2" * 500,
    "set/read.me": b"no",
    "__MACOSX/._one.mp4": b"no",
}


def packed(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    return path


def put(archive: Path) -> dict[str, int]:
    return unpack(archive, archive.parent / "out", ".mp4", lambda *_: None)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_wanted_members_arrive_without_their_folders(tmp_path: Path, compression: int) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS, compression=compression))
    told: list[tuple[int, int]] = []
    sizes = unpack(archive, tmp_path / "out", ".mp4", lambda n, total: told.append((n, total)))
    assert sizes == {"one.mp4": 1000, "two.mp4": 500}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "one.mp4": b"1" * 1000,
        "two.mp4": b"2" * 500,
    }
    assert told == [(1000, 1500), (1500, 1500)]


def test_a_member_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS))
    put(archive)
    before = (tmp_path / "out" / "one.mp4").stat().st_ino
    (tmp_path / "out" / "two.mp4").write_bytes(b"x" * 500)  # of the same size, but other content
    put(archive)
    assert (tmp_path / "out" / "one.mp4").stat().st_ino == before
    assert (tmp_path / "out" / "two.mp4").read_bytes() == b"2" * 500


def test_a_broken_off_unpacking_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS))
    copy = shutil.copyfileobj

    def fail_at_two(source: zipfile.ZipExtFile, *rest: object) -> None:
        if source.name.endswith("two.mp4"):
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, *rest)

    monkeypatch.setattr(archive_module.shutil, "copyfileobj", fail_at_two)
    with pytest.raises(UserError, match=r"The disk is full while .* is being unpacked"):
        put(archive)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.mp4"]
    assert bytes_to_unpack(archive, tmp_path / "out", ".mp4") == 500
    monkeypatch.undo()
    put(archive)
    assert bytes_to_unpack(archive, tmp_path / "out", ".mp4") == 0


def test_a_leftover_of_a_killed_run_is_replaced(tmp_path: Path) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".one.mp4.partial").write_bytes(b"half")
    put(archive)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.mp4", "two.mp4"]


@pytest.mark.parametrize(
    "name", ["../evil.mp4", "a/../../evil.mp4", "/evil.mp4", "..\\evil.mp4", "C:\\evil.mp4", "c:evil.mp4"]
)
def test_a_name_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    archive = packed(tmp_path, zip_bytes({"good.mp4": b"1", name: b"2"}))
    with pytest.raises(UserError, match="leads out of its folder"):
        put(archive)
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip", "out"] or not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        link = zipfile.ZipInfo("link.mp4")
        link.create_system = 3
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="is a link"):
        put(packed(tmp_path, buffer.getvalue()))
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_link_in_the_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS))
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "one.mp4").symlink_to(outside)
    (tmp_path / "out" / ".two.mp4.partial").symlink_to(outside)
    put(archive)
    assert outside.read_bytes() == b"precious"
    assert not (tmp_path / "out" / "one.mp4").is_symlink()


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two members of the name one\.mp4"):
        put(packed(tmp_path, zip_bytes({"a/one.mp4": b"1", "b/one.mp4": b"2"})))


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no \.mp4 member"):
        put(packed(tmp_path, zip_bytes({"one.json": b"{}"})))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", zip_bytes(MEMBERS)[:-40]],
    ids=["empty", "a page", "cut"],  # as bytes they would hold the time, and differ between processes
)
def test_what_is_no_archive_or_not_whole_is_damaged(tmp_path: Path, content: bytes) -> None:
    archive = packed(tmp_path, content)
    with pytest.raises(DamagedArchive, match=r"a\.zip is damaged .*fetch it again"):
        put(archive)
    assert bytes_to_unpack(archive, tmp_path / "out", ".mp4") == 0


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_is_found_by_its_crc(tmp_path: Path, compression: int) -> None:
    content = bytearray(zip_bytes({"one.mp4": bytes(range(256)) * 8}, compression=compression))
    content[30 + len("one.mp4") + 100] ^= 1  # the local header has 30 bytes and the name
    with pytest.raises(DamagedArchive):
        put(packed(tmp_path, bytes(content)))
    assert not list((tmp_path / "out").iterdir())


def test_an_encrypted_member_is_damage(tmp_path: Path) -> None:
    content = bytearray(zip_bytes({"one.mp4": b"1" * 100}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature) + offset
        content[at : at + 2] = struct.pack("<H", 1)  # the flag of encryption
    with pytest.raises(DamagedArchive, match="encrypted"):
        put(packed(tmp_path, bytes(content)))


def test_too_little_room_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(tmp_path, zip_bytes(MEMBERS))
    usage = shutil.disk_usage(tmp_path)._replace(free=archive_module.SPARE_BYTES + 1499)
    monkeypatch.setattr(archive_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"a\.zip needs 0\.00 GB .* make room there"):
        put(archive)
    assert not list((tmp_path / "out").iterdir())
    require_space(tmp_path / "not" / "yet", 1499, "one byte less")


def refused(tmp_path: Path, content: bytes, match: str) -> None:
    archive = packed(tmp_path, content)
    with pytest.raises(UserError, match=match) as caught:
        put(archive)
    message = str(caught.value)
    assert printable(message, len(message)) == message
    assert str(archive) in message
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a\nb.mp4", r"a\\nb\.mp4.*not seen as themselves"),
        ("\x1b[31mred.mp4", "not seen as themselves"),
        ("\u202e4pm.mp4", "not seen as themselves"),
        ("x" * 300 + ".mp4", "more than 200 bytes"),
        ("ü" * 120 + ".mp4", "more than 200 bytes"),
    ],
)
def test_a_name_that_cannot_be_shown_or_written_is_refused(tmp_path: Path, name: str, match: str) -> None:
    refused(tmp_path, zip_bytes({name: b"1"}), match)


@pytest.mark.parametrize(
    "names", [("One.mp4", "one.mp4"), ("e\u0301.mp4", "\u00e9.mp4"), ("a/STRASSE.mp4", "straße.MP4")]
)
def test_names_that_some_file_systems_do_not_tell_apart_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    refused(tmp_path, zip_bytes(dict.fromkeys(names, b"1")), "two members of the name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        member = zipfile.ZipInfo("a.mp4")
        member.create_system = 3
        member.external_attr = (kind | 0o666) << 16
        opened.writestr(member, "")
    refused(tmp_path, buffer.getvalue(), "is a link")


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, zip_bytes({"a.mp4": bytes(4_000_000)}, compression=zipfile.ZIP_DEFLATED), "200 times its size")


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    chance = random.Random(0)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("a.mp4", chance.randbytes(10_000))
        for name in ("b.mp4", "c.mp4"):  # listed, but where the first one lies
            other = copy.copy(opened.infolist()[0])
            other.filename = name
            opened.filelist.append(other)
    refused(tmp_path, buffer.getvalue(), "members that overlap")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_unpacks_without_a_bound_is_refused(tmp_path: Path, method: int) -> None:
    refused(tmp_path, zip_bytes({"a.mp4": b"1" * 1000}, compression=method), f"compressed by method {method}")


@pytest.mark.parametrize("method", [1, 6, 9, 93, 99, 65535])
def test_an_unknown_method_is_refused(tmp_path: Path, method: int) -> None:
    content = bytearray(zip_bytes({"one.mp4": b"1" * 100}))
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.index(signature) + offset
        content[at : at + 2] = struct.pack("<H", method)
    refused(tmp_path, bytes(content), f"compressed by method {method}")


@pytest.mark.parametrize("size", [0, 99, 101, 0xFFFFFFFF])
def test_a_size_that_is_not_true_is_found(tmp_path: Path, size: int) -> None:
    content = bytearray(zip_bytes({"one.mp4": b"1" * 100}))
    at = content.index(b"PK\x01\x02") + 24  # the size in the directory, which is what is believed
    content[at : at + 4] = struct.pack("<I", size)
    refused(tmp_path, bytes(content), "damaged|200 times")


def test_a_folder_in_a_members_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "out" / "one.mp4").mkdir(parents=True)
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked to .*out"):
        put(packed(tmp_path, zip_bytes(MEMBERS)))


@given(
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    changes=st.lists(
        st.tuples(
            st.floats(0, 1, exclude_max=True), st.sampled_from(["flip", "cut", "add", "number"]), st.integers(0, 255)
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_changed_archive_gives_what_was_packed_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, compression: int, changes: list[tuple[float, str, int]]
) -> None:
    members = {"set/one.mp4": b"one" * 30, "two.mp4": b"two" * 50, "read.me": b"no"}
    content = bytearray(zip_bytes(members, compression=compression))
    for where, how, value in changes:
        at = int(where * len(content))
        if how == "cut":
            del content[at : at + value]
        elif how == "add":
            content[at:at] = bytes([value]) * 9
        elif content:
            content[at : at + (4 if how == "number" else 1)] = bytes([value]) * (4 if how == "number" else 1)
    folder = tmp_path_factory.mktemp("changed")
    archive = packed(folder, bytes(content))
    assert bytes_to_unpack_or_refusal(archive) is not None
    try:
        put(archive)
    except UserError as error:
        message = str(error)
        assert printable(message, len(message)) == message
        assert str(archive) in message
    assert {path.parent for path in folder.rglob("*")} <= {folder, folder / "out"}
    for path in (folder / "out").glob("*"):
        assert path.read_bytes() in members.values()


def bytes_to_unpack_or_refusal(archive: Path) -> int | UserError:
    try:
        return bytes_to_unpack(archive, archive.parent / "out", ".mp4")
    except UserError as error:
        return error
