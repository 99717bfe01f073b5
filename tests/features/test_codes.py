from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from collect.errors import UserError
from collect.reading import ActivationStore
from features.codes import Codes
from features.codes_files import open_group, seal
from features.encoding import encode_store, encode_tokens
from tests.features.conftest import PlantedVideo, planted_sae

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codes(store: ActivationStore, tmp_path_factory: pytest.TempPathFactory) -> Codes:
    return encode_store(
        store, planted_sae(), tmp_path_factory.mktemp("codes") / "codes.zarr", batch_size=300, device=CPU
    )


def test_codes_are_the_planted_activations(codes: Codes, planted: list[PlantedVideo]) -> None:
    truth = np.concatenate([item.activations for item in planted]).astype(np.float32)
    np.testing.assert_array_equal(codes.rows(0, codes.n_tokens).toarray(), truth)
    assert codes.n_nonzeros == (truth != 0).sum()
    assert codes.rows(0, 0).shape == (0, codes.d_sae)


def test_every_way_of_reading_gives_the_same(codes: Codes) -> None:
    dense = codes.rows(0, codes.n_tokens).toarray()
    np.testing.assert_array_equal(codes.rows(100, 777).toarray(), dense[100:777])
    blocks = [block.toarray() for _, block in codes.blocks(n_tokens=700)]
    np.testing.assert_array_equal(np.concatenate(blocks), dense)
    np.testing.assert_array_equal(codes.columns(np.array([3, 1])).toarray(), dense[:, [3, 1]])
    tokens, values = codes.column(2)
    np.testing.assert_array_equal(tokens, np.flatnonzero(dense[:, 2]))
    np.testing.assert_array_equal(values, dense[tokens, 2])


def test_latents_of_a_token_ascend() -> None:
    x = torch.zeros(2, 16)
    x[0, [5, 1, 3]] = 1.0
    codes = encode_tokens(planted_sae(), x)
    assert codes.indices.tolist() == [1, 3, 5]
    assert codes.indptr.tolist() == [0, 3, 3]


def test_finite_weights_that_are_too_large_are_refused_with_the_saes_name(
    store: ActivationStore, tmp_path: Path
) -> None:
    sae = planted_sae()
    huge = replace(sae, W_enc=sae.W_enc.clone().index_fill_(1, torch.tensor([2]), 3e38))  # the largest is 3.4e38
    with pytest.raises(UserError, match=r"^runs/huge gives activations that are not finite, of latent 2 for one"):
        encode_store(store, huge, tmp_path / "codes.zarr", batch_size=300, device=CPU, name="runs/huge")
    assert not (tmp_path / "codes.zarr").exists()


def test_an_interrupted_encoding_goes_on_and_equals_an_uninterrupted_one(
    store: ActivationStore, codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "codes.zarr"
    reads: list[int] = []
    read = ActivationStore.read

    def read_some(self: ActivationStore, site: str, start: int, stop: int) -> torch.Tensor:
        reads.append(start)
        if len(reads) == 4:
            raise KeyboardInterrupt
        return read(self, site, start, stop)

    monkeypatch.setattr(ActivationStore, "read", read_some)
    with pytest.raises(KeyboardInterrupt):
        encode_store(store, planted_sae(), folder, batch_size=300, device=CPU)
    with pytest.raises(UserError, match="incomplete"):
        Codes.open(folder)
    resumed = encode_store(store, planted_sae(), folder, batch_size=300, device=CPU)
    assert reads[4] == 900  # three blocks of 300 were kept
    assert (resumed.rows(0, store.n_tokens) != codes.rows(0, store.n_tokens)).nnz == 0
    assert not list(tmp_path.glob("*.partial"))


def test_finished_codes_are_left_alone(store: ActivationStore, tmp_path: Path) -> None:
    folder = tmp_path / "codes.zarr"
    encode_store(store, planted_sae(), folder, batch_size=4096, device=CPU)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    encode_store(store, planted_sae(), folder, batch_size=4096, device=CPU)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    shutil.rmtree(folder)


def test_plain_zarr_reads_the_codes(codes: Codes, store: ActivationStore, tmp_path: Path) -> None:
    import zarr

    folder = tmp_path / "codes.zarr"
    encode_store(store, planted_sae(), folder, batch_size=4096, device=CPU)
    group = zarr.open_group(folder, mode="r")
    indptr, indices, values = (np.asarray(group[name]) for name in ("indptr", "indices", "values"))
    row = 5 * 16 + 3
    dense = np.zeros(codes.d_sae, dtype=np.float32)
    dense[indices[indptr[row] : indptr[row + 1]]] = values[indptr[row] : indptr[row + 1]]
    np.testing.assert_array_equal(dense, codes.rows(row, row + 1).toarray()[0])
    assert (indptr.dtype, indices.dtype, values.dtype) == (np.int64, np.int32, np.float32)


def test_missing_codes_are_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run `video-sae features` first"):
        Codes.open(tmp_path / "codes.zarr")


@pytest.fixture
def written(store: ActivationStore, tmp_path: Path) -> Path:
    """Finished codes that a test may damage."""
    folder = tmp_path / "codes.zarr"
    encode_store(store, planted_sae(), folder, batch_size=4096, device=CPU)
    return folder


def reads(folder: Path, store: ActivationStore) -> np.ndarray:
    opened = Codes.open(folder, n_tokens=store.n_tokens, d_sae=planted_sae().d_sae)
    return opened.rows(0, opened.n_tokens).toarray()


def test_a_flipped_bit_in_any_file_is_found_or_changes_nothing(written: Path, store: ActivationStore) -> None:
    expected = reads(written, store)
    rng = np.random.default_rng(0)
    n_found, n_tried = 0, 0
    for path in sorted(path for path in written.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for position in rng.integers(0, len(whole), size=20):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            n_tried += 1
            try:
                np.testing.assert_array_equal(reads(written, store), expected)
            except UserError as error:
                assert str(written) in str(error)  # noqa: PT017
                n_found += 1
        path.write_bytes(whole)
    assert n_found > 0.8 * n_tried  # the rest is white space in the metadata


@pytest.mark.parametrize("name", ["zarr.json", "indptr/zarr.json", "indptr/c/0", "indices/c/0", "values/c/0"])
@pytest.mark.parametrize("is_finished", [True, False])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(written: Path, name: str, is_finished: bool) -> None:
    folder = written if is_finished else written.rename(written.with_name("codes.zarr.partial"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="is not a file"):
        Codes.open(folder) if is_finished else open_group(folder, "r+")


@pytest.mark.parametrize("name", ["zarr.json", "indptr/zarr.json", "indptr/c/0", "indices/c/0", "values/c/0"])
def test_a_file_that_is_gone_cut_short_or_a_folder_is_found(written: Path, store: ActivationStore, name: str) -> None:
    path = written / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"codes\.zarr.*run `video-sae features` again"):
        reads(written, store)
    path.unlink()
    with pytest.raises(UserError, match=r"codes\.zarr.*run `video-sae features`"):
        reads(written, store)
    path.mkdir()
    with pytest.raises(UserError, match=r"codes\.zarr.*run `video-sae features`"):
        reads(written, store)


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [
        ("indices", 5, 10**6),
        ("indices", 5, -1),
        ("values", 3, float("nan")),
        ("values", 3, float("inf")),
        ("values", 3, -1.0),
        ("values", 3, 0.0),
        ("indptr", 7, 10**12),
        ("indptr", 7, -1),
        ("indptr", 0, 1),
        ("indptr", -1, 0),
    ],
)
def test_codes_that_cannot_be_are_refused_though_their_checksums_are_right(
    written: Path, store: ActivationStore, array: str, place: int, value: float
) -> None:
    group, arrays = open_group(written, "r+")
    arrays[array][place] = value
    seal(written, group)
    with pytest.raises(UserError, match=r"codes\.zarr is damaged"):
        reads(written, store)


def test_a_latent_that_stands_twice_at_a_token_is_refused(written: Path, store: ActivationStore) -> None:
    group, arrays = open_group(written, "r+")
    pointers = np.asarray(arrays["indptr"])
    token = int(np.flatnonzero(np.diff(pointers) >= 2)[0])
    arrays["indices"][int(pointers[token]) + 1] = arrays["indices"][int(pointers[token])]
    seal(written, group)
    with pytest.raises(UserError, match="entries that cannot be"):
        reads(written, store)


def test_codes_of_another_store_or_sae_are_refused(written: Path, store: ActivationStore) -> None:
    with pytest.raises(UserError, match=f"of {store.n_tokens} tokens where {store.n_tokens + 1} are needed"):
        Codes.open(written, n_tokens=store.n_tokens + 1)
    group, _ = open_group(written, "r+")
    group.attrs["d_sae"] = 10**9
    seal(written, group)
    with pytest.raises(UserError, match="of 1000000000 latents where"):
        Codes.open(written, d_sae=planted_sae().d_sae)


@pytest.mark.parametrize("content", ["[1]", "{", '{"n_rows": "9"}', '{"n_rows": 999999}', '{"n_rows": -4}'])
def test_a_damaged_progress_file_is_named(store: ActivationStore, written: Path, content: str) -> None:
    partial = written.rename(written.with_name("codes.zarr.partial"))
    (partial / "progress.json").write_text(content)
    with pytest.raises(UserError, match=r"codes\.zarr\.partial"):
        encode_store(store, planted_sae(), written, batch_size=300, device=CPU)
