from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy import sparse

import features.codes_by_latent
import features.codes_writer
from collect.errors import UserError
from features.codes import Codes
from features.codes_by_latent import PROGRESS_NAME, SPILL_SUFFIX, bucket_cuts, write_by_latent
from features.codes_files import open_group, seal
from features.codes_writer import CodesWriter

N_TOKENS, D_SAE = 900, 37


def matrix(seed: int = 0) -> sparse.csr_array:
    """Codes with latents that never fire, and one that fires at every token."""
    rng = np.random.default_rng(seed)
    rates = np.where(np.arange(D_SAE) % 5 == 0, 0.0, rng.random(D_SAE) ** 3)
    rates[7] = 1.0
    dense = (rng.random((N_TOKENS, D_SAE)) < rates) * (0.1 + rng.random((N_TOKENS, D_SAE)))
    return sparse.csr_array(dense.astype(np.float32))


def write_token_major(folder: Path, codes: sparse.csr_array, site: str = "resid/0") -> Codes:
    writer = CodesWriter(folder, codes.shape[0], {"d_sae": codes.shape[1], "site": site})
    for start, stop in writer.left([0, 400, codes.shape[0]]):
        block = codes[start:stop]
        writer.append(block.indptr, block.indices, block.data)
    writer.finish()
    return Codes.open(folder)


@pytest.fixture
def codes(tmp_path: Path) -> Codes:
    return write_token_major(tmp_path / "codes.zarr", matrix())


def small_steps(patch: pytest.MonkeyPatch) -> None:
    """Several blocks, several buckets, and groups within a bucket."""
    patch.setattr(features.codes_by_latent, "BLOCK_TOKENS", 128)
    patch.setattr(features.codes_by_latent, "MAX_ENTRIES", 1500)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_copy_is_the_transpose(codes: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)
    write_by_latent(codes)
    dense = matrix().toarray()
    np.testing.assert_array_equal(codes.by_latent(np.arange(D_SAE)).toarray(), dense)
    np.testing.assert_array_equal(codes.n_active(), (dense > 0).sum(axis=0))
    assert sorted(path.name for path in codes.folder.parent.iterdir()) == ["codes.zarr", "codes_by_latent.zarr"]


@pytest.mark.parametrize("latents", [[], [3], [7, 8, 9], [0, 5], [36, 2, 2, 20], list(range(D_SAE))])
@pytest.mark.parametrize("chunk", [0, 50, 1 << 18])
def test_columns_are_those_asked_for(
    codes: Codes, latents: list[int], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_latent(codes)
    monkeypatch.setattr("features.codes.CHUNK", chunk)
    chosen = np.array(latents, dtype=np.int64)
    dense = matrix().toarray()[:, chosen]
    found = codes.by_latent(chosen)
    assert found.has_sorted_indices
    np.testing.assert_array_equal(found.toarray(), dense)
    np.testing.assert_array_equal(codes.columns(chosen).toarray(), dense)


def test_a_column_is_its_tokens_and_activations(codes: Codes) -> None:
    write_by_latent(codes)
    dense = matrix().toarray()
    for latent in (0, 3, 7):
        tokens, values = codes.column(latent)
        np.testing.assert_array_equal(tokens, np.flatnonzero(dense[:, latent]))
        np.testing.assert_array_equal(values, dense[tokens, latent])


def test_the_bytes_do_not_depend_on_blocks_buckets_and_groups(
    codes: Codes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_by_latent(codes)
    whole = content_of(codes.by_latent_folder)
    small_steps(monkeypatch)
    again = write_token_major(tmp_path / "again" / "codes.zarr", matrix())
    write_by_latent(again)
    assert content_of(again.by_latent_folder) == whole


def test_plain_zarr_reads_the_copy(codes: Codes) -> None:
    write_by_latent(codes)
    group = zarr.open_group(codes.by_latent_folder, mode="r")
    indptr, indices, values = (np.asarray(group[name]) for name in ("indptr", "indices", "values"))
    assert (indptr.dtype, indices.dtype, values.dtype) == (np.int64, np.int32, np.float32)
    expected = matrix().tocsc()
    np.testing.assert_array_equal(indptr, expected.indptr)
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(values, expected.data)


def test_buckets_hold_all_latents_once() -> None:
    for n_nonzeros, d_sae in ((0, 1), (10**12, 7), (3 * 10**9, 32768), (100, 70_000), (1, 2**20), (10, 2**25)):
        cuts = bucket_cuts(n_nonzeros, d_sae)
        assert (cuts[0], cuts[-1]) == (0, d_sae)
        assert np.diff(cuts).min() > 0
        assert np.diff(cuts).max() <= 2**16


KILLED = """
import sys
from pathlib import Path
import features.codes_by_latent as by_latent
from features.codes import Codes

by_latent.BLOCK_TOKENS, by_latent.MAX_ENTRIES = 64, 700
print("begun", flush=True)
by_latent.write_by_latent(Codes.open(Path(sys.argv[1])))
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(codes: Codes, tmp_path: Path) -> None:
    write_by_latent(codes)
    whole = content_of(codes.by_latent_folder)
    rng = random.Random(0)
    n_killed = 0
    for trial in range(2):
        folder = tmp_path / str(trial)
        again = write_token_major(folder / "codes.zarr", matrix())
        for attempt in range(200):
            with subprocess.Popen(
                [sys.executable, "-c", KILLED, str(again.folder)],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            ) as process:
                assert process.stdout is not None
                process.stdout.readline()
                try:
                    process.wait(timeout=rng.uniform(0.0, 0.01 * attempt))
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    n_killed += 1
                    continue
            assert process.returncode == 0
            break
        assert content_of(again.by_latent_folder) == whole
        assert sorted(path.name for path in folder.iterdir()) == ["codes.zarr", "codes_by_latent.zarr"]
    assert n_killed > 0


@pytest.mark.parametrize("n_steps", range(1, 60, 5))
def test_interrupted_after_any_step_it_goes_on_to_the_same_bytes(
    codes: Codes, tmp_path: Path, n_steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_steps(monkeypatch)
    write_by_latent(codes)
    whole = content_of(codes.by_latent_folder)
    again = write_token_major(tmp_path / "again" / "codes.zarr", matrix())
    left = [n_steps]

    def interrupted(function):  # type: ignore[no-untyped-def]
        def call(*arguments, **options):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(features.codes_by_latent, "write_json", interrupted(features.codes_by_latent.write_json))
        patch.setattr(features.codes_writer, "write_json", interrupted(features.codes_writer.write_json))
        patch.setattr(zarr.Array, "__setitem__", interrupted(zarr.Array.__setitem__))
        patch.setattr(zarr.Array, "resize", interrupted(zarr.Array.resize))
        try:
            write_by_latent(again)
        except KeyboardInterrupt:
            assert not again.by_latent_folder.exists()
    write_by_latent(again)
    assert content_of(again.by_latent_folder) == whole


def test_a_finished_copy_is_left_alone(codes: Codes) -> None:
    write_by_latent(codes)
    before = {path: path.stat().st_mtime_ns for path in codes.by_latent_folder.rglob("*")}
    write_by_latent(codes)
    assert {path: path.stat().st_mtime_ns for path in codes.by_latent_folder.rglob("*")} == before


def test_a_copy_of_other_codes_is_made_again(codes: Codes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_by_latent(codes)
    other = write_token_major(tmp_path / "other" / "codes.zarr", matrix(1))
    shutil.copytree(codes.by_latent_folder, other.by_latent_folder)
    with pytest.raises(UserError, match=r"codes_by_latent\.zarr is damaged \(it is not a copy of codes\.zarr\)"):
        other.column(3)
    write_by_latent(Codes.open(other.folder))
    assert "is not a copy of these codes: it is made again" in caplog.text
    np.testing.assert_array_equal(Codes.open(other.folder).by_latent(np.arange(D_SAE)).toarray(), matrix(1).toarray())


def test_a_missing_copy_is_a_user_error(codes: Codes) -> None:
    with pytest.raises(UserError, match=r"codes_by_latent\.zarr does not exist.*run `video-sae features` first"):
        codes.column(0)


def test_a_flipped_bit_is_found(codes: Codes) -> None:
    write_by_latent(codes)
    for name in ("indptr", "indices", "values"):
        path = codes.by_latent_folder / name / "c" / "0"
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(UserError, match=r"codes_by_latent\.zarr is damaged"):
                Codes.open(codes.folder).by_latent(np.arange(D_SAE))
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [("indices", 5, N_TOKENS), ("indices", 5, -1), ("values", 3, 0.0), ("indptr", 9, 10**9), ("indptr", -1, 0)],
)
def test_entries_that_cannot_be_are_refused_though_checksums_are_right(
    codes: Codes, array: str, place: int, value: float
) -> None:
    write_by_latent(codes)
    group, arrays = open_group(codes.by_latent_folder, "r+")
    arrays[array][place] = value
    seal(codes.by_latent_folder, group)
    with pytest.raises(UserError, match=r"codes_by_latent\.zarr is damaged"):
        Codes.open(codes.folder).by_latent(np.arange(D_SAE))


def test_a_damaged_spill_is_found(codes: Codes, monkeypatch: pytest.MonkeyPatch) -> None:
    small_steps(monkeypatch)
    monkeypatch.setattr(features.codes_by_latent, "_append", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_by_latent(codes)
    monkeypatch.undo()
    small_steps(monkeypatch)
    spill = codes.by_latent_folder.with_name(codes.by_latent_folder.name + SPILL_SUFFIX)
    assert (spill / PROGRESS_NAME).exists()
    path = spill / "0"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"file 0 fails its checksum"):
        write_by_latent(codes)
    path.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"file 0 is shorter than progress\.json says"):
        write_by_latent(codes)
