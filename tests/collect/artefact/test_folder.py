"""Artefact folders: config.json, the decision to resume, atomic files, typed tables."""

import dataclasses
import errno
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from collect.artefact import folder as artefact
from collect.artefact.folder import (
    check_resume,
    file_hash,
    read_config,
    read_object,
    read_table,
    remove_orphans,
    sync_folder,
    write_atomic,
    write_config,
    write_json,
    write_table,
)
from collect.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """The arguments of an imaginary stage."""

    data: Path = Path("videos")
    sites: tuple[str, ...] = ("resid/1", "resid/2")
    frames: int | None = None
    rate: float = 1.0
    device: str = "cpu"


def test_config_round_trip_turns_paths_and_tuples_into_json(tmp_path: Path) -> None:
    write_config(tmp_path / "deep" / "folder", "collect", Arguments(), {"model": "abc"})
    config = read_config(tmp_path / "deep" / "folder", "collect")
    assert config["arguments"] == {
        "data": "videos",
        "sites": ["resid/1", "resid/2"],
        "frames": None,
        "rate": 1.0,
        "device": "cpu",
    }
    assert config["inputs"] == {"model": "abc"}


def test_config_names_versions_and_commit(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {})
    config = read_config(tmp_path, "collect")
    assert config["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"torch", "transformers", "zarr", "numpy"} <= set(config["versions"])
    assert config["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", config["commit"])


def test_commit_is_none_where_the_source_is_not_the_top_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(artefact, "__file__", str(tmp_path / "site-packages" / "collect" / "artefact" / "folder.py"))
    (tmp_path / "site-packages" / "collect" / "artefact").mkdir(parents=True)
    assert artefact.source_commit.__wrapped__() is None


def test_reading_versions_imports_no_heavy_library() -> None:
    code = (
        "import sys, collect.artefact.folder as a; a.installed_versions();"
        "print([m for m in ('torch', 'transformers', 'zarr', 'numpy', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist: run `video-sae collect` first"),
        ("{", "is not valid JSON"),
        ("[]", "is not a JSON object"),
        ('{"stage": "collect"}', "lacks `arguments` or `inputs`"),
        ('{"stage": "train", "arguments": {}, "inputs": {}}', "belongs to the stage 'train' where 'collect' is needed"),
    ],
)
def test_unusable_config_is_a_user_error_that_names_the_file(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_config(tmp_path, "collect")
    assert str(tmp_path / "config.json") in str(caught.value)


def test_resume_is_false_before_and_true_after_the_config_is_written(tmp_path: Path) -> None:
    assert check_resume(tmp_path, "collect", Arguments(), {"model": "abc"}) is False
    write_config(tmp_path, "collect", Arguments(), {"model": "abc"})
    assert check_resume(tmp_path, "collect", Arguments(), {"model": "abc"}) is True


def test_resume_says_what_changed_in_one_sentence(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {"model": "abc"})
    with pytest.raises(UserError) as caught:
        check_resume(tmp_path, "collect", Arguments(frames=8, data=Path("other")), {"model": "def"})
    assert str(caught.value) == (
        f'{tmp_path} was begun with other settings, data = "videos" (now "other"), frames = null (now 8) and '
        'input model = "abc" (now "def"): give the earlier ones to go on there, '
        "choose another --out or --name, or delete the folder."
    )


def test_resume_says_when_an_argument_came_or_went(tmp_path: Path) -> None:
    write_config(tmp_path, "train", {"old": 1}, {})
    with pytest.raises(UserError, match=re.escape("old = 1 (now absent) and new = absent (now 2)")):
        check_resume(tmp_path, "train", {"new": 2}, {})


def test_resume_overlooks_ignored_arguments_only(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(), {})
    assert check_resume(tmp_path, "collect", Arguments(device="cuda"), {}, ignore=("device",)) is True
    with pytest.raises(UserError, match="device"):
        check_resume(tmp_path, "collect", Arguments(device="cuda"), {})


def test_resume_takes_equal_numbers_for_equal(tmp_path: Path) -> None:
    write_config(tmp_path, "collect", Arguments(rate=1.0), {})
    assert check_resume(tmp_path, "collect", Arguments(rate=1), {}) is True


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


def test_config_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"cannot stand in config\.json"):
        write_config(tmp_path, "collect", {"dtype": object()}, {})
    assert list(tmp_path.iterdir()) == []


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
