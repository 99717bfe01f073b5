"""Archives and stores that are refused: what leads out, what is no archive, what is unfinished."""

import json
import shutil
from pathlib import Path

import pytest

obstore = pytest.importorskip("obstore")

from obstore.store import MemoryStore  # noqa: E402

from collect.config import ArchiveConfig  # noqa: E402
from collect.errors import UserError  # noqa: E402
from collect.reading import ActivationStore  # noqa: E402
from collect.store.archive import archive, open_target, restore, save  # noqa: E402
from collect.store.archive_list import ArchiveList, ObjectEntry  # noqa: E402
from tests.collect.store_files import edit_manifest  # noqa: E402


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "rank-0.zarr/../../out"])
def test_a_list_that_leads_out_is_refused(small: Path, tmp_path: Path, name: str) -> None:
    place = Path(shutil.copytree(small / "False", tmp_path / "archive"))
    listed = ArchiveList.parse((place / "archive.json").read_bytes())
    listed.objects[name] = listed.objects["config.json"]
    (place / "archive.json").write_bytes(listed.encoded())
    with pytest.raises(UserError, match=r"archive\.json.* leads to no other folder"):
        restore(open_target(str(place)), tmp_path / "back" / "activations")
    assert not (tmp_path / "back").exists()


def test_a_manifest_that_leads_out_is_refused(small: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(small / "False", tmp_path / "archive"))
    for change in ({"zarr": str(tmp_path / "out.zarr")}, {"log": "../rank-0.jsonl"}):
        edit_manifest(place, lambda content, change=change: content["ranks"][0].update(change))
        listed = ArchiveList.parse((place / "archive.json").read_bytes())
        listed.objects["manifest.json"] = ObjectEntry.of((place / "manifest.json").read_bytes())
        (place / "archive.json").write_bytes(listed.encoded())
        with pytest.raises(UserError):
            restore(open_target(str(place)), tmp_path / "back" / "activations")
        assert not (tmp_path / "back").exists()
        assert not (tmp_path / "out.zarr").exists()


def test_links_out_of_a_folder_are_not_followed(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.move(place / "config.json", outside)
    (place / "config.json").symlink_to(outside)
    with pytest.raises(UserError, match=r"config\.json.*is not one within"):
        restore(open_target(str(place)), tmp_path / "back")
    (place / "config.json").unlink()
    shutil.copy(outside, place / "config.json")
    folder = tmp_path / "linked"
    folder.mkdir()
    (folder / "restoring.json").write_text(
        json.dumps({"store": ArchiveList.parse((place / "archive.json").read_bytes()).store})
    )
    (folder / "rank-0.zarr").symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"rank-0\.zarr.*is not one within"):
        restore(open_target(str(place)), folder)
    assert not (tmp_path / "coords").exists()


def test_an_archive_without_checksums_is_refused_with_the_way_out(place: Path, tmp_path: Path) -> None:
    (place / "archive.json").unlink()
    with pytest.raises(
        UserError, match=r"no archive\.json .* if an earlier version of this program wrote it, restore it with that one"
    ):
        restore(open_target(str(place)), tmp_path / "back")


def test_no_folder_is_made_for_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere cannot be opened"):
        archive(ArchiveConfig(run=tmp_path, at=str(tmp_path / "nowhere"), restore=True))
    assert not (tmp_path / "nowhere").exists()


def test_an_unfinished_store_is_refused(run: Path) -> None:
    (run / "activations" / "manifest.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        save(run / "activations", MemoryStore())


def test_an_encoded_archive_is_not_taken_for_a_store(run: Path, tmp_path: Path) -> None:
    at = tmp_path / "archive"
    save(run / "activations", open_target(str(at)), compress=True)
    shutil.copytree(at, tmp_path / "taken")
    with pytest.raises(UserError, match="is an archive"):
        ActivationStore.open(tmp_path / "taken")


def test_an_unknown_place() -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        open_target("nowhere://x")
