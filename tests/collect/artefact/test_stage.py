"""When a stage counts as finished."""

import hashlib
import json
from pathlib import Path

import pytest

from collect.artefact.config_json import write_config
from collect.artefact.folder import write_json
from collect.artefact.stage import begin_or_resume, changes_since, is_finished, write_summary
from collect.errors import UserError

CONFIG = {"seed": 0}


def finished(folder: Path) -> Path:
    assert not begin_or_resume(folder, "features", CONFIG, {"store": "a"})
    (folder / "codes.zarr" / "c").mkdir(parents=True)
    (folder / "codes.zarr" / "c" / "0").write_bytes(b"12345")
    (folder / "table.parquet").write_bytes(b"rows")
    write_summary(folder, {"n_latents": 3}, ["table.parquet", "codes.zarr"])
    return folder


def test_a_summary_names_what_it_speaks_of(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    content = json.loads((folder / "summary.json").read_text())
    assert len(content.pop("checksum")) == 16
    assert content == {
        "n_latents": 3,
        "files": {
            "codes.zarr": {"n_files": 1, "bytes": 5},
            "table.parquet": {"bytes": 4, "sha256": hashlib.sha256(b"rows").hexdigest()},
        },
    }
    assert is_finished(folder)
    assert begin_or_resume(folder, "features", CONFIG, {"store": "a"})


def test_with_other_inputs_it_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    with pytest.raises(UserError, match="input store"):
        begin_or_resume(folder, "features", CONFIG, {"store": "b"})
    assert is_finished(folder)
    assert begin_or_resume(folder, "features", CONFIG, {"store": "b"}, recorded=("store",))


@pytest.mark.parametrize("damage", ["other content", "longer", "gone", "a folder", "codes gone", "codes shorter"])
def test_what_has_changed_is_removed_and_made_again(tmp_path: Path, damage: str) -> None:
    folder = finished(tmp_path)
    table, codes = folder / "table.parquet", folder / "codes.zarr" / "c" / "0"
    match damage:
        case "other content":
            table.write_bytes(b"ROWS")
        case "longer":
            table.write_bytes(b"rows and more")
        case "gone":
            table.unlink()
        case "a folder":
            table.unlink()
            table.mkdir()
        case "codes gone":
            codes.unlink()
        case "codes shorter":
            codes.write_bytes(b"1")
    assert not is_finished(folder)
    assert not begin_or_resume(folder, "features", CONFIG, {"store": "a"})
    assert not (folder / "summary.json").exists()
    assert (folder / "table.parquet").exists() == damage.startswith("codes")
    assert (folder / "codes.zarr").exists() != damage.startswith("codes")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"files": []}', '{"files": {}}', '{"n_latents": 3}', "null"])
def test_a_summary_that_says_nothing_does_not_make_a_stage_finished(tmp_path: Path, text: str) -> None:
    folder = finished(tmp_path)
    (folder / "summary.json").write_text(text)
    assert changes_since(folder) == ["summary.json"]
    assert not begin_or_resume(folder, "features", CONFIG, {"store": "a"})
    assert (folder / "table.parquet").exists()


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a/../../secret", "link/secret", "/dev/zero", ".", "a\0b"]
)
def test_a_name_that_leads_out_of_the_folder_is_neither_believed_nor_removed(tmp_path: Path, name: str) -> None:
    folder = finished(tmp_path / "features")
    (tmp_path / "secret").write_bytes(b"rows")
    (folder / "link").symlink_to(tmp_path)
    content = json.loads((folder / "summary.json").read_text())
    content["files"][name] = content["files"]["table.parquet"]
    del content["checksum"]
    write_json(folder / "summary.json", content)
    assert changes_since(folder) == [name]
    assert not begin_or_resume(folder, "features", CONFIG, {"store": "a"})
    assert (tmp_path / "secret").read_bytes() == b"rows"
    assert (folder / "table.parquet").exists()


def test_without_its_config_a_summary_is_of_something_else(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    (folder / "config.json").unlink()
    assert not begin_or_resume(folder, "features", CONFIG, {"store": "a"})
    assert not (folder / "summary.json").exists()


def test_leftovers_of_a_killed_process_are_removed_from_all_folders(tmp_path: Path) -> None:
    (tmp_path / "media" / "latent-1").mkdir(parents=True)
    orphan = tmp_path / "media" / "latent-1" / ".0-strip.jpg.1234abcd.tmp"
    orphan.write_bytes(b"half")
    begin_or_resume(tmp_path, "features", CONFIG, {})
    assert not orphan.exists()


def test_paths_are_kept_absolute_and_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "a", "collect", CONFIG, {}, {"data": Path("videos")})
    assert json.loads((tmp_path / "a" / "config.json").read_text())["paths"] == {"data": str(tmp_path / "videos")}
    assert not begin_or_resume(tmp_path / "a", "collect", CONFIG, {}, paths={"data": Path("elsewhere")})
