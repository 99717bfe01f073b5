"""`docs/formats.md` is enough to read a store without this program."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr

from collect.config import CollectConfig
from collect.reading import ActivationStore
from collect.run import collect
from tests.collect.numpy_reader import crc32c, read_site, read_tokens
from tests.collect.process.test_ranks import Job


@pytest.fixture(scope="module")
def config(clips: Path, tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> CollectConfig:
    return CollectConfig(
        data=clips,
        model=str(tiny_vlm),
        out=tmp_path_factory.mktemp("read") / "run",
        sites=("projector", "resid/1"),
        frames="8",
        dtype="bfloat16",
        device="cpu",
        shard_rows=512,
    )


def test_the_checksum_is_that_of_the_document() -> None:
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_numpy_alone_reads_every_rank(
    config: CollectConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str
) -> None:
    config = replace(config, out=tmp_path, dtype=dtype)
    job = Job(monkeypatch, 2)
    job.run(0, config)
    job.run(1, config)
    store = ActivationStore.open(tmp_path / "activations")
    for site in store.sites:
        assert np.array_equal(read_site(store.folder, site), store.read(site, 0, store.n_tokens).float().numpy())
    coords = store.coords(0, store.n_tokens)
    tokens = read_tokens(store.folder)
    for (video_id, start_s, end_s, box), (video, t, row, col) in zip(tokens, coords.tolist(), strict=True):
        record = store.videos[video]
        assert video_id == record.video_id
        assert [start_s, end_s] == record.grid.spans_s[t].tolist()
        assert list(box) == record.grid.box(row, col).tolist()


def test_plain_zarr_shows_the_valid_rows_and_no_others(config: CollectConfig, tmp_path: Path) -> None:
    store = ActivationStore.open(collect(replace(config, out=tmp_path, tokens="every:3")))
    group = zarr.open_group(store.folder / "rank-0.zarr", mode="r", use_consolidated=False)
    for site in store.sites:
        array = group[site]
        assert isinstance(array, zarr.Array)
        assert array.shape == (store.n_tokens, store.d_in(site)) == (10 * 3 * 16, 48)
        assert array.attrs["logical_dtype"] == "bfloat16"
        read = torch.from_numpy(np.asarray(array[:])).view(torch.bfloat16)
        assert torch.equal(read, store.read(site, 0, store.n_tokens))


def test_the_reader_needs_numpy_alone() -> None:
    code = (
        "import sys, tests.collect.numpy_reader;"
        "print({name.partition('.')[0] for name in sys.modules} & {'collect', 'torch', 'zarr', 'google_crc32c'})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
