"""Artefact folders: atomic files, typed tables, JSON objects, hashes."""

import errno
import os
import stat
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from collect.artefact.config_json import write_config
from collect.artefact.folder import (
    file_hash,
    read_object,
    read_table,
    remove_orphans,
    sync_folder,
    write_atomic,
    write_json,
    write_table,
)
from collect.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_synchronise_folders_will_do_and_a_failing_one_will_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.fsync

    def refuse(number: int) -> None:
        def fsync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(number, os.strerror(number))
            plain(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(errno.EINVAL)
    write_atomic(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"
    refuse(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")


def test_atomic_files_have_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    write_atomic(tmp_path / "atomic", b"\x00\xff")
    assert (tmp_path / "atomic").read_bytes() == b"\x00\xff"
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


SCHEMA = pa.schema([("latent", pa.int32()), ("label", pa.string()), ("auroc", pa.float32())])


def test_table_round_trip_keeps_values_and_takes_types_from_the_schema(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": ["cup", "ball"], "auroc": [0.5, float("nan")], "latent": [3, 4]}, index=[7, 9])
    write_table(tmp_path / "t.parquet", frame, SCHEMA)
    back = read_table(tmp_path / "t.parquet")
    assert list(back.columns) == ["latent", "label", "auroc"]
    assert back["latent"].dtype == "int32"
    assert back["auroc"].dtype == "float32"
    assert back["label"].tolist() == ["cup", "ball"]
    assert back["auroc"].isna().tolist() == [False, True]
    assert back.index.tolist() == [0, 1]


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame({"latent": range(100), "label": ["cup"] * 100, "auroc": [0.25] * 100})
    write_table(tmp_path / "a.parquet", frame, SCHEMA)
    write_table(tmp_path / "b.parquet", frame.copy(), SCHEMA)
    assert file_hash(tmp_path / "a.parquet") == file_hash(tmp_path / "b.parquet")


def test_table_with_a_wrong_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="extra"):
        write_table(tmp_path / "t.parquet", pd.DataFrame({"latent": [1], "label": ["a"], "extra": [1]}), SCHEMA)
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(("content", "message"), [(None, "does not exist"), (b"PAR?", "cannot be read as parquet")])
def test_unreadable_table_is_a_user_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "t.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_a_changed_json_artefact_is_refused_and_one_without_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"n": 10, "rates": [0.5, 1e-9], "name": "a\u20ac"})
    assert read_object(path, "run it again") == {"n": 10, "rates": [0.5, 1e-9], "name": "a\u20ac"}
    path.write_text(path.read_text().replace('"n": 10', '"n": 11'))
    with pytest.raises(UserError, match=r"summary\.json does not match its `checksum`.*: run it again, or remove"):
        read_object(path, "run it again")
    path.write_text('{"n": 11}')
    assert read_object(path, "run it again") == {"n": 11}


def test_the_error_of_a_damaged_table_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    write_config(tmp_path, "steer", {}, {})
    (tmp_path / "parts").mkdir()
    for path in (tmp_path / "effects.parquet", tmp_path / "parts" / "0.parquet"):
        path.write_text("text")
        with pytest.raises(UserError, match="delete it and run `video-sae steer` again"):
            read_table(path)
    write_json(tmp_path / "summary.json", {})
    with pytest.raises(UserError, match=r"delete it and the summary\.json beside it and run `video-sae steer` again"):
        read_table(tmp_path / "effects.parquet")


def test_hash_is_sha256_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_hash_of_no_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a file"):
        file_hash(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "device", tmp_path / "pipe" / "below"):
        with pytest.raises(UserError, match="is not a file"):
            file_hash(path)


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "kept.json", "{}")
    with monkeypatch.context() as patch:
        # A kill leaves what is there before the rename: nothing is tidied up.
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "begun.json", "{}")
    assert len(list(tmp_path.iterdir())) == 2
    remove_orphans(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]
