"""Archives on object stores: complete with their manifest, readable by plain zarr, restored bit by bit."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

obstore = pytest.importorskip("obstore")

import zarr  # noqa: E402
from obstore.store import MemoryStore  # noqa: E402
from zarr.storage import ObjectStore  # noqa: E402

from collect.artefact.config_json import write_config  # noqa: E402
from collect.config import ArchiveConfig, VerifyConfig  # noqa: E402
from collect.errors import UserError  # noqa: E402
from collect.reading import ActivationStore  # noqa: E402
from collect.store.archive import archive, open_target, restore, save  # noqa: E402
from collect.store.verify import verify  # noqa: E402
from tests.collect.s3_server import S3Server, s3_server  # noqa: E402
from tests.collect.store_files import contents, write_store  # noqa: E402


def names(target: MemoryStore) -> list[str]:
    return sorted(item["path"] for page in obstore.list(target) for item in page)


def test_a_restored_store_is_the_archived_one(run: Path, tmp_path: Path, compress: bool) -> None:
    target = MemoryStore()
    save(run / "activations", target, compress=compress)
    assert not [name for name in names(target) if name.endswith(".lock")]
    restore(target, tmp_path / "back" / "activations")
    restored = contents(tmp_path / "back" / "activations")
    original = contents(run / "activations")
    assert restored.keys() == original.keys()
    for name in original:
        assert restored[name] == original[name], name
    verify(VerifyConfig(run=tmp_path / "back"))


def test_plain_zarr_reads_an_archive_where_it_lies(run: Path, compress: bool) -> None:
    target = MemoryStore()
    save(run / "activations", target, compress=compress)
    store = ActivationStore.open(run / "activations")
    group = zarr.open_group(ObjectStore(target, read_only=True), path="rank-0.zarr", mode="r", use_consolidated=False)
    array = group["resid/2"]
    assert isinstance(array, zarr.Array)
    read = torch.from_numpy(np.asarray(array[:])).view(torch.bfloat16)
    assert torch.equal(read, store.read("resid/2", 0, store.n_tokens))


def test_an_archive_without_a_manifest_is_not_complete_and_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compress: bool
) -> None:
    target = MemoryStore()
    put, left = obstore.put, 4

    def cut(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConnectionError("lost")
        return put(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", cut)
        with pytest.raises(ConnectionError):
            save(run / "activations", target, compress=compress)
    with pytest.raises(UserError, match="is not complete"):
        restore(target, tmp_path / "back")
    save(run / "activations", target, compress=compress)
    whole = MemoryStore()
    save(run / "activations", whole, compress=compress)
    assert names(target) == names(whole)
    for name in names(whole):
        assert bytes(obstore.get(target, name).bytes()) == bytes(obstore.get(whole, name).bytes())


def test_a_folder_is_a_place_too(run: Path, tmp_path: Path) -> None:
    at = str(tmp_path / "archive")
    assert archive(ArchiveConfig(run=run, at=at)) == at
    assert archive(ArchiveConfig(run=tmp_path / "back", at=at, restore=True)) == str(tmp_path / "back" / "activations")
    assert contents(tmp_path / "back" / "activations") == contents(run / "activations")
    archive(ArchiveConfig(run=tmp_path / "back", at=at, restore=True))  # there already
    listed = contents(Path(at)).pop("archive.json")
    assert contents(Path(at)) == {**contents(run / "activations"), "archive.json": listed}


def all_files(folder: Path) -> dict[str, bytes]:
    """Every file, leftovers of interruptions included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def files_of_store(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in all_files(folder).items() if not name.endswith(".lock")}


def test_a_lost_or_changed_object_is_named_and_nothing_passes_for_it(place: Path, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(all_files(place))):
        whole = (place / name).read_bytes()
        damages = {"lost": None, "cut": whole[:-2], "flipped": bytes([*whole[:-9], whole[-9] ^ 4, *whole[-8:]])}
        for damage, data in damages.items():
            (place / name).unlink() if data is None else (place / name).write_bytes(data)
            out = tmp_path / f"{number}-{damage}"
            with pytest.raises(UserError, match=re.escape(name)):
                restore(open_target(str(place)), out)
            assert not (out / "manifest.json").exists()
        (place / name).write_bytes(whole)


def test_another_store_is_not_overwritten(place: Path, small: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other" / "activations", (2, 2))
    before = contents(other)
    for unfinished in (False, True):
        if unfinished:
            (other / "manifest.json").unlink()
            before.pop("manifest.json")
        with pytest.raises(UserError, match="holds another store"):
            restore(open_target(str(place)), other)
        assert contents(other) == before
    assert files_of_store(small / "activations")


def test_an_archive_of_another_store_or_kind_is_left_alone(
    place: Path, small: Path, tmp_path: Path, compress: bool
) -> None:
    """The other store has files of the same names and sizes."""
    other = write_store(tmp_path / "other" / "activations", (4, 0, 3))
    write_config(other, "collect", {}, {})
    before = all_files(place)
    with pytest.raises(UserError, match="place holds another store: choose another place"):
        save(other, open_target(str(place)), compress=compress)
    with pytest.raises(UserError, match="holds this store with"):
        save(small / "activations", open_target(str(place)), compress=not compress)
    (place / "archive.json").unlink()
    with pytest.raises(UserError, match=r"holds .* already, but no archive\.json"):
        save(small / "activations", open_target(str(place)), compress=compress)
    assert all_files(place) | {"archive.json": before["archive.json"]} == before


def test_a_folder_in_the_place_of_an_object_is_named(place: Path, small: Path, compress: bool) -> None:
    shard = next(path for path in sorted(place.rglob("0")) if path.is_file())
    shard.unlink()
    shard.mkdir()
    with pytest.raises(UserError, match=f"^{re.escape(str(shard))} is a folder where a file belongs: move it away"):
        save(small / "activations", open_target(str(place)), compress=compress)


def test_what_an_archive_lost_is_put_back_by_archiving_again(place: Path, small: Path, compress: bool) -> None:
    before = all_files(place)
    shard = next(name for name in before if name.endswith("c/1/0"))
    (place / shard).unlink()
    (place / "config.json").write_bytes(b"")
    save(small / "activations", open_target(str(place)), compress=compress)
    assert all_files(place) == before


class Crash(BaseException):
    """Stands for the end of the process."""


def crash_at(patch: pytest.MonkeyPatch, n_steps: int, *, leave_part: Path | None = None) -> None:
    """Stop dead at the `n_steps`-th write of an object, or rename of a file."""
    left = n_steps

    def step(name: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            if leave_part is not None:  # as obstore leaves the file that it had begun
                path = leave_part / f"{name}#1"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"half")
            raise Crash

    put, replace = obstore.put, Path.replace
    patch.setattr(
        obstore, "put", lambda target, name, data: (step(name) if leave_part else None, put(target, name, data))[1]
    )
    patch.setattr(Path, "replace", lambda path, to: (step(to) if not leave_part else None, replace(path, to))[1])


def test_a_copy_that_is_killed_anywhere_ends_as_one_that_was_not(small: Path, tmp_path: Path, compress: bool) -> None:
    whole = all_files(small / str(compress))
    for n_steps in range(0, len(whole), 4):
        place = tmp_path / str(n_steps)
        target = open_target(str(place))
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, n_steps, leave_part=place)
            with pytest.raises(Crash):
                save(small / "activations", target, compress=compress)
        with pytest.raises(UserError, match="is not complete"):
            restore(target, tmp_path / "none")
        save(small / "activations", target, compress=compress)
        assert all_files(place) == whole
    assert n_steps > 8


def test_a_restoring_that_is_killed_anywhere_ends_as_one_that_was_not(place: Path, small: Path, tmp_path: Path) -> None:
    whole = files_of_store(small / "activations")
    n_steps, ended = 0, False
    while not ended:
        out = tmp_path / str(n_steps)
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, n_steps)
            try:
                restore(open_target(str(place)), out)
                ended = True
            except Crash:
                assert not (out / "manifest.json").exists()
        restore(open_target(str(place)), out)
        assert files_of_store(out) == whole
        n_steps += 5
    assert n_steps > 10


def test_a_store_is_mended_from_its_archive(place: Path, small: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small / "activations", tmp_path / "store"))
    (store / "rank-0.zarr/coords/c/0/0").unlink()
    (store / "rank-0.zarr/projector/zarr.json").write_text("")
    path = store / "rank-0.zarr/resid/2/c/1/0"
    path.write_bytes(b"x" + path.read_bytes()[1:])
    restore(open_target(str(place)), store)
    assert files_of_store(store) == files_of_store(small / "activations")


def test_a_shard_in_the_place_of_another_is_mended_too(place: Path, small: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small / "activations", tmp_path / "store"))
    before = contents(folder)
    shards = folder / "rank-0.zarr" / "projector" / "c"
    shutil.copyfile(shards / "1" / "0", shards / "0" / "0")
    restore(open_target(str(place)), folder)
    assert contents(folder) == before


def test_a_damaged_store_is_not_archived(small: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(small / "activations", tmp_path / "store"))
    (store / "rank-0.zarr/coords/c/0/0").unlink()
    with pytest.raises(UserError, match=r"coords/c/0/0 is wrong .* `video-sae verify`"):
        save(store, open_target(str(tmp_path / "at")))
    assert not all_files(tmp_path / "at")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A local S3, reached as a user would reach theirs: by variables of the environment and a URL."""
    with s3_server() as server:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        yield server


def test_a_bucket_of_s3(run: Path, tmp_path: Path, bucket: S3Server, compress: bool) -> None:
    at = "s3://bucket/runs/one"
    bucket.fail_after = 5
    with pytest.raises(UserError, match=r"cannot be reached or written .*run this again"):
        archive(ArchiveConfig(run=run, at=at, compress=compress))
    bucket.fail_after = None
    archive(ArchiveConfig(run=run, at=at, compress=compress))
    assert all(key.startswith("runs/one/") for key in bucket.objects)
    archive(ArchiveConfig(run=tmp_path / "back", at=at, restore=True))
    original = ActivationStore.open(run / "activations")
    restored = ActivationStore.open(tmp_path / "back" / "activations")
    assert restored.fingerprint == original.fingerprint
    for site in original.sites:
        assert torch.equal(restored.read(site, 0, 66), original.read(site, 0, 66))
    group = zarr.open_group(
        ObjectStore(open_target(at), read_only=True), path="rank-0.zarr", mode="r", use_consolidated=False
    )
    array = group["projector"]
    assert isinstance(array, zarr.Array)
    assert torch.equal(torch.from_numpy(np.asarray(array[:])), original.read("projector", 0, 66))
