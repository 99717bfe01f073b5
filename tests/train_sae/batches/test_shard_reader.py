"""Rows straight from shard files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect.errors import UserError
from collect.reading import ActivationStore
from tests.train_sae.stores import CHUNK_ROWS, D_IN, SHARD_ROWS, SITE, VIDEO_TOKENS, write_run
from train_sae.batches import shard_reader
from train_sae.batches.shard_reader import ShardReader

N_VIDEOS = 13
N_ROWS = N_VIDEOS * VIDEO_TOKENS  # 832 rows: three full shards of 256 and one of 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    run = write_run(tmp_path_factory.mktemp("run"), N_VIDEOS, torch.bfloat16)
    return ActivationStore.open(run / "activations")


def reader(store: ActivationStore, **changes: object) -> ShardReader:
    return ShardReader(store.shards(SITE), store.dtype(SITE), **changes)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), share=st.floats(0.002, 1), verify=st.booleans(), threads=st.integers(1, 3))
def test_rows_arrive_at_their_places(
    store: ActivationStore, seed: int, share: float, verify: bool, threads: int
) -> None:
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(generator.random(N_ROWS) < share)
    if not len(rows):
        rows = np.array([5])
    places = generator.permutation(len(rows) + 3)[: len(rows)]
    out = torch.full((len(rows) + 3, D_IN), torch.nan, dtype=torch.bfloat16)
    for _ in range(2):  # the second time no checksum is verified any more
        reader(store, verify=verify, threads=threads).read(rows, places, out)
        assert torch.equal(out[torch.from_numpy(places)], store.read(SITE, 0, N_ROWS)[torch.from_numpy(rows)])
    assert int(out.isnan().any(1).sum()) == 3


def test_a_run_of_rows_longer_than_one_vectored_read(store: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_reader, "_MAX_VECTORS", CHUNK_ROWS - 1)
    out = torch.empty(N_ROWS, D_IN, dtype=torch.bfloat16)
    reader(store, verify=False).read(np.arange(N_ROWS), np.arange(N_ROWS), out)
    assert torch.equal(out, store.read(SITE, 0, N_ROWS))


def test_each_chunk_is_verified_once(tmp_path: Path) -> None:
    store = ActivationStore.open(write_run(tmp_path, 4) / "activations")
    checked, trusting = reader(store), reader(store, verify=False)
    first, rows = np.arange(0, 256, 2), np.arange(1, 256, 2)
    out = torch.empty(len(rows), D_IN)
    checked.read(first, np.arange(len(first)), out)
    path = store.shards(SITE)[0].path
    content = bytearray(path.read_bytes())
    content[4 * D_IN * 101 + 7 + 4] ^= 1  # in row 101, which lies behind the four bytes of one checksum
    path.write_bytes(content)
    for trusted in (checked, trusting):
        trusted.read(rows, np.arange(len(rows)), out)
    with pytest.raises(UserError, match=r"is damaged \(its chunk at byte \d+ fails its checksum\)"):
        reader(store).read(rows, np.arange(len(rows)), out)


def test_a_whole_shard_in_the_place_of_another_is_a_user_error(tmp_path: Path) -> None:
    store = ActivationStore.open(write_run(tmp_path, 8) / "activations")
    first, second = (shard.path for shard in store.shards(SITE)[:2])
    first.write_bytes(second.read_bytes())
    with pytest.raises(
        UserError, match=r"is damaged \(its chunk at byte 0 is whole, but not the one that was committed"
    ):
        reader(store).read(np.arange(3), np.arange(3), torch.empty(3, D_IN))


def test_a_missing_or_short_shard_is_a_user_error(tmp_path: Path) -> None:
    store = ActivationStore.open(write_run(tmp_path, 8) / "activations")
    broken, path = reader(store, verify=False), store.shards(SITE)[1].path
    rows = np.arange(SHARD_ROWS, SHARD_ROWS + 100)
    out = torch.empty(len(rows), D_IN)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="it ends within its chunk"):
        broken.read(rows, np.arange(len(rows)), out)
    path.unlink()
    with pytest.raises(UserError, match=r"is damaged \(No such file or directory\)"):
        broken.read(rows, np.arange(len(rows)), out)
