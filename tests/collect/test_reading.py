import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from collect.errors import UserError
from collect.reading import ActivationStore
from collect.store.manifest import write_manifest
from tests.collect.store_files import SITES, edit_log, edit_manifest, make_first_version, residuals_of, write_store

LENGTHS = (3, 0, 7, 1, 5)  # time steps of three tokens; the second video fails
N_TOKENS = 3 * sum(LENGTHS)  # 48 rows: three shards of 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "activations", LENGTHS)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return write_store(tmp_path / "activations", LENGTHS)


def expected(site: str) -> torch.Tensor:
    return torch.cat([residuals_of(i, 3 * n)[site] for i, n in enumerate(LENGTHS) if n])


@pytest.mark.parametrize("site", SITES)
def test_what_was_written_is_read_in_its_own_type(folder: Path, site: str) -> None:
    store = ActivationStore.open(folder)
    assert store.n_tokens == N_TOKENS
    rows = store.read(site, 0, store.n_tokens)
    assert rows.dtype == store.dtype(site) == SITES[site].dtype
    assert torch.equal(rows, expected(site))


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (15, 17), (3, 3), (10, 48), (47, 48), (5, 6)])
def test_any_range_of_rows(folder: Path, start: int, stop: int) -> None:
    store = ActivationStore.open(folder)
    assert torch.equal(store.read("resid/2", start, stop), expected("resid/2")[start:stop])
    assert np.array_equal(store.coords(start, stop), store.coords(0, N_TOKENS)[start:stop])


def test_videos_and_coords_agree(folder: Path) -> None:
    store = ActivationStore.open(folder)
    assert [video.video_id for video in store.videos] == ["v0", "v2", "v3", "v4"]
    assert [video.index for video in store.videos] == [0, 1, 2, 3]  # positions, although video 1 of the data failed
    coords = store.coords(0, N_TOKENS)
    for video in store.videos:
        rows = store.rows_of(video.video_id)
        assert np.all(coords[rows, 0] == video.index)
        assert np.array_equal(coords[rows, 1:], video.grid.coords())
    assert [(f.index, f.video_id, f.reason) for f in store.failures] == [(1, "v1", "it is no video")]


def test_plain_zarr_reads_it(folder: Path) -> None:
    group = zarr.open_group(folder / "rank-0.zarr", mode="r", use_consolidated=False)
    store = ActivationStore.open(folder)
    projector, resid = group["projector"], group["resid/2"]
    assert np.array_equal(projector[:N_TOKENS], expected("projector").numpy())
    assert resid.attrs["logical_dtype"] == "bfloat16"
    assert torch.equal(torch.from_numpy(resid[:N_TOKENS]).view(torch.bfloat16), expected("resid/2"))
    assert np.array_equal(group["coords"][:N_TOKENS, 1:], store.coords(0, N_TOKENS)[:, 1:])
    assert np.array_equal(np.unique(group["coords"][:N_TOKENS, 0]), [0, 2, 3, 4])  # counts all videos of the data


def test_numpy_alone_reads_it(folder: Path) -> None:
    """A reader written from the format's description: JSON, numpy and nothing of ours."""
    manifest = json.loads((folder / "manifest.json").read_text())
    (rank,) = manifest["ranks"]
    array = folder / rank["zarr"] / "resid" / "2"
    shape = json.loads((array / "zarr.json").read_text())["shape"]
    chunk_bytes = manifest["chunk_rows"] * shape[1] * 2
    n_chunks = manifest["shard_rows"] // manifest["chunk_rows"]
    rows = []
    for k in range(-(-rank["n_tokens"] // manifest["shard_rows"])):
        raw = (array / "c" / str(k) / "0").read_bytes()
        index = np.frombuffer(raw[-(16 * n_chunks + 4) : -4], dtype="<u8").reshape(n_chunks, 2)
        for offset, length in index[index[:, 0] != 2**64 - 1].tolist():
            assert length == chunk_bytes + 4
            rows.append(np.frombuffer(raw[offset : offset + chunk_bytes], dtype="<u2").reshape(-1, shape[1]))
    stored = np.concatenate(rows)[: rank["n_tokens"]]
    assert np.array_equal(stored, expected("resid/2").view(torch.uint16).numpy())


def test_shards_tell_where_each_row_lies(folder: Path) -> None:
    store = ActivationStore.open(folder)
    rows = []
    for shard in store.shards("projector"):
        raw = shard.path.read_bytes()
        chunks = [raw[int(o) : int(o) + shard.chunk_bytes] for o in shard.chunk_offsets]
        whole = np.frombuffer(b"".join(chunks), dtype=store.stored_dtype("projector")).reshape(-1, 6)
        rows.append(whole[: shard.n_rows])
    assert np.array_equal(np.concatenate(rows), expected("projector").numpy())


def test_moments_are_those_of_all_rows(folder: Path) -> None:
    for site in SITES:
        rows = expected(site).double().numpy()
        moments = ActivationStore.open(folder).moments(site)
        assert moments.n == N_TOKENS
        assert np.allclose(moments.mean, rows.mean(axis=0))
        assert np.allclose(moments.second_moment, (rows**2).mean(axis=0))
        assert moments.median_norm == pytest.approx(np.median(np.linalg.norm(rows, axis=1)), rel=0.1)


def test_the_fingerprint_follows_the_content(folder: Path, copy: Path, tmp_path: Path) -> None:
    known = ActivationStore.open(folder).fingerprint
    assert ActivationStore.open(copy).fingerprint == known
    other = write_store(tmp_path / "other", [3, 5])
    assert ActivationStore.open(other).fingerprint != known
    edit_log(copy / "rank-0.jsonl", lambda lines: lines[0]["model"].update(fingerprint="another"))
    write_manifest(copy, [0])
    assert ActivationStore.open(copy).fingerprint != known
    assert ActivationStore.open(make_first_version(write_store(tmp_path / "first", LENGTHS))).fingerprint == known


def test_several_ranks_are_read_in_the_order_of_the_manifest(folder: Path, copy: Path) -> None:
    other = write_store(copy.parent / "other", (2, 2))
    shutil.copytree(other / "rank-0.zarr", copy / "rank-1.zarr")
    shutil.copy(other / "rank-0.jsonl", copy / "rank-1.jsonl")

    def rename(lines: list[dict]) -> None:
        for video in (video for line in lines[1:] for video in line["videos"]):
            video["video_id"] = f"w{video['index']}"

    edit_log(copy / "rank-1.jsonl", rename)
    write_manifest(copy, [0, 1])
    store, one, two = (ActivationStore.open(path) for path in (copy, folder, other))
    assert store.n_tokens == N_TOKENS + 12
    both = torch.cat([one.read("projector", 0, N_TOKENS), two.read("projector", 0, 12)])
    assert torch.equal(store.read("projector", 0, store.n_tokens), both)
    assert [video.index for video in store.videos] == [0, 1, 2, 3, 4, 5]
    assert store.coords(N_TOKENS, N_TOKENS + 12)[:, 0].tolist() == [4] * 6 + [5] * 6
    merged = store.moments("projector").mean
    assert np.allclose(merged, both.double().numpy().mean(axis=0))


@pytest.mark.parametrize("position", [0, 100, 300])
def test_a_flipped_bit_is_found(copy: Path, position: int) -> None:
    path = copy / "rank-0.zarr" / "projector" / "c" / "1" / "0"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))
    store = ActivationStore.open(copy)
    assert len(store.read("projector", 0, 16)) == 16  # the first shard is whole
    with pytest.raises(UserError, match="fails its checksum") as info:
        store.read("projector", 0, N_TOKENS)
    assert str(path) in str(info.value)


def test_a_damaged_index_is_found(copy: Path) -> None:
    path = copy / "rank-0.zarr" / "resid" / "2" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="its index fails its checksum"):
        ActivationStore.open(copy).shards("resid/2")


@pytest.mark.parametrize("size", [None, 0, 40])
def test_a_missing_or_short_shard_is_found(copy: Path, size: int | None) -> None:
    path = copy / "rank-0.zarr" / "coords" / "c" / "2" / "0"
    path.write_bytes(path.read_bytes()[: size or 0])
    if size is None:
        path.unlink()
    with pytest.raises(UserError, match=r"coords/c/2/0 is damaged"):
        ActivationStore.open(copy).coords(0, 1)


def test_a_log_that_lost_a_line_is_found(copy: Path) -> None:
    path = copy / "rank-0.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    with pytest.raises(UserError, match=r"counts on rank-0\.jsonl, which is not complete"):
        ActivationStore.open(copy)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone does not exist: run `video-sae collect`"):
        ActivationStore.open(tmp_path / "gone")


def test_an_unfinished_store(copy: Path) -> None:
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match="is not finished: run `video-sae collect`"):
        ActivationStore.open(copy)


@pytest.mark.parametrize(("text", "reason"), [("{", "is not valid JSON"), ("{}", "is damaged"), ("[]", "is damaged")])
def test_a_damaged_manifest(copy: Path, text: str, reason: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=reason):
        ActivationStore.open(copy)


def test_another_version(copy: Path) -> None:
    edit_manifest(copy, lambda content: content.update(version=99))
    with pytest.raises(UserError, match="another version"):
        ActivationStore.open(copy)


def test_no_such_site_or_video(folder: Path) -> None:
    store = ActivationStore.open(folder)
    with pytest.raises(UserError, match="no site 'resid/9': choose one of projector, resid/2"):
        store.read("resid/9", 0, 1)
    with pytest.raises(UserError, match="no video 'v1': it failed, or was not collected"):
        store.rows_of("v1")
