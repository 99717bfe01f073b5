"""Archives on object stores: complete with their manifest, readable by plain zarr, restored bit by bit."""

import json
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

from collect.artefact import write_config  # noqa: E402
from collect.config import ArchiveConfig, VerifyConfig  # noqa: E402
from collect.errors import UserError  # noqa: E402
from collect.store import ActivationStore  # noqa: E402
from collect.store_archive import archive, open_target, restore, save  # noqa: E402
from collect.verify import verify  # noqa: E402
from tests.collect.s3_server import S3Server, s3_server  # noqa: E402
from tests.collect.store_files import contents, write_store  # noqa: E402

LENGTHS = (3, 0, 7, 1, 5, 0, 4, 2)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = write_store(tmp_path / "run" / "activations", LENGTHS)
    write_config(folder, "collect", {}, {})
    return tmp_path / "run"


def names(target: MemoryStore) -> list[str]:
    return sorted(item["path"] for page in obstore.list(target) for item in page)


@pytest.mark.parametrize("compress", [False, True])
def test_a_restored_store_is_the_archived_one(run: Path, tmp_path: Path, compress: bool) -> None:
    target = MemoryStore()
    save(run / "activations", target, compress=compress)
    assert not [name for name in names(target) if name.endswith(".lock")]
    restore(target, tmp_path / "back" / "activations")
    restored = contents(tmp_path / "back" / "activations")
    original = contents(run / "activations")
    assert restored.keys() == original.keys()
    for name in original:
        if compress and name == "manifest.json":
            assert json.loads(restored[name]) == json.loads(original[name])
            continue
        assert restored[name] == original[name], name
    verify(VerifyConfig(run=tmp_path / "back"))


@pytest.mark.parametrize("compress", [False, True])
def test_plain_zarr_reads_an_archive_where_it_lies(run: Path, compress: bool) -> None:
    target = MemoryStore()
    save(run / "activations", target, compress=compress)
    store = ActivationStore.open(run / "activations")
    group = zarr.open_group(ObjectStore(target, read_only=True), path="rank-0.zarr", mode="r", use_consolidated=False)
    array = group["resid/2"]
    assert isinstance(array, zarr.Array)
    read = torch.from_numpy(np.asarray(array[:])).view(torch.bfloat16)
    assert torch.equal(read, store.read("resid/2", 0, store.n_tokens))


@pytest.mark.parametrize("compress", [False, True])
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
    with pytest.raises(UserError, match="has no manifest, so it is not complete"):
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
    assert contents(Path(at)) == contents(run / "activations")


def test_another_store_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other" / "activations", (2, 2))
    target = MemoryStore()
    save(run / "activations", target)
    before = contents(other)
    with pytest.raises(UserError, match="holds another store"):
        restore(target, other)
    assert contents(other) == before


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


@pytest.mark.parametrize("compress", [False, True])
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
