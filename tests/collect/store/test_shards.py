from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from collect.store.shards import open_shard, read_rows, write_shard


def rows_of(n: int, d: int = 5) -> np.ndarray:
    return np.arange(1, n * d + 1, dtype="<f4").reshape(n, d)


@pytest.mark.parametrize("n", [16, 12])
def test_a_shard_is_byte_for_byte_what_zarr_writes(tmp_path: Path, n: int) -> None:
    array = zarr.create_array(
        tmp_path / "a.zarr",
        shape=(16, 5),
        dtype="float32",
        shards=(16, 5),
        chunks=(4, 5),
        fill_value=0,
        compressors=[Crc32cCodec()],
        config={"write_empty_chunks": False},
    )
    array[:n] = rows_of(n)
    ours = tmp_path / "c" / "0"
    write_shard(ours, rows_of(n), shard_rows=16, chunk_rows=4)
    assert ours.read_bytes() == (tmp_path / "a.zarr" / "c" / "0" / "0").read_bytes()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_rows_are_read_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    chunk_rows = data.draw(st.integers(1, 5))
    n_chunks = data.draw(st.integers(1, 4))
    n = data.draw(st.integers(1, chunk_rows * n_chunks))
    start = data.draw(st.integers(0, n - 1))
    stop = data.draw(st.integers(start + 1, n))
    path = tmp_path_factory.mktemp("shard") / "c" / "0"
    write_shard(path, rows_of(n), shard_rows=chunk_rows * n_chunks, chunk_rows=chunk_rows)
    shard = open_shard(path, row_start=100, row_stop=100 + n, n_chunks=n_chunks, chunk_rows=chunk_rows, row_bytes=20)
    out = np.empty((stop - start, 5), dtype="<f4")
    read_rows(shard, 100 + start, 100 + stop, out)
    assert np.array_equal(out, rows_of(n)[start:stop])
    assert (shard.n_rows, shard.chunk_bytes) == (n, 20 * chunk_rows)


def test_nothing_is_left_beside_a_written_shard(tmp_path: Path) -> None:
    write_shard(tmp_path / "c" / "0", rows_of(4), shard_rows=4, chunk_rows=4)
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["0"]
