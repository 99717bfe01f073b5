"""How fast shuffled batches come, and how well they are shuffled.

    loader_over_floor         GB/s of `TokenLoader`, shuffled, by the GB/s of the floor
    floor_gb_per_s            the floor: `preadv` of the same chunks in file order into one reused buffer of the size of
                              a pool, one thread. It is what filling a pool costs without shuffling
    gb_per_s                  of the loader, checksums already verified
    verifying_gb_per_s        of its first pass, which verifies them
    loader_over_cached_floor  by the GB/s of `preadv` into one reused chunk of 1 MiB, which stays in the processor's
    cached_floor_gb_per_s     cache: faster than any reader can be that leaves the rows in memory
    gather_over_floor         the floor and then a gather of the rows in shuffled order, by the floor: what the loader
                              is spared
    videos_per_batch          different videos in a batch, mean over batches; `_ideal` of as many independent draws
    video_mates               other tokens of the same video in the batch, per token; `_ideal` likewise
    local_mates               other tokens of the same 64 rows, per token; `_ideal` likewise

Speed is measured on [token, 2048] bfloat16 in shards of 16,384 rows with chunks of 256, read warm, in pools of 131,072
rows, so that runs of 64 rows are as scattered as in a store of many pools. Batches of 8,192 tokens are taken and not
used. The shuffle is that of the order of 10,500 videos of 6,272 tokens with the default pool.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Metrics, Options, alternate, median_ratio, medians, run_benchmark, seconds
from collect.store.shards import Shard, open_shard, write_shard
from train_sae.batches.loader import TokenLoader
from train_sae.batches.order import UNIT_ROWS, TokenOrder
from train_sae.batches.shard_reader import ShardReader
from train_sae.batches.token_set import RowRange, TokenSet

D_IN, SHARD_ROWS, CHUNK_ROWS, BATCH = 2048, 16384, 256, 8192
POOL_ROWS = 2**17
N_VIDEOS, VIDEO_TOKENS = 10_500, 6_272


def measure(options: Options) -> Metrics:
    """Measure a store in a temporary folder."""
    n_shards, rounds = (16, 2) if options.quick else (48, 7)
    with tempfile.TemporaryDirectory() as folder:
        shards = list(_write(Path(folder), n_shards))
        n_rows = n_shards * SHARD_ROWS
        reader = ShardReader(shards, torch.bfloat16)
        tokens = TokenSet((RowRange(0, n_rows),))
        loader = TokenLoader(reader, tokens, batch_size=BATCH, seed=0, pool_rows=POOL_ROWS)
        steps = n_rows // BATCH
        pool, chunk = torch.ones(POOL_ROWS, D_IN, dtype=torch.bfloat16), torch.ones(CHUNK_ROWS, D_IN).bfloat16()
        epoch = iter(range(1, 100))
        first = seconds(lambda: _drain(loader, 0, steps))

        def take() -> None:
            start = next(epoch) * steps
            _drain(loader, start, start + steps)

        sides = {
            "loader": take,
            "floor": lambda: read_in_order(shards, pool),
            "cached": lambda: read_in_order(shards, chunk),
            "gather": lambda: _gather(shards, pool),
        }
        times = alternate(sides, rounds)
    gigabytes = n_rows * D_IN * 2 / 1e9
    speed = {name: gigabytes / value for name, value in medians(times).items()}
    n_videos = 200 if options.quick else N_VIDEOS
    ranges = tuple(RowRange(i * VIDEO_TOKENS, (i + 1) * VIDEO_TOKENS) for i in range(n_videos))
    return {
        "loader_over_floor": median_ratio(times["floor"], times["loader"]),
        "gb_per_s": speed["loader"],
        "floor_gb_per_s": speed["floor"],
        "verifying_gb_per_s": gigabytes / first,
        "loader_over_cached_floor": median_ratio(times["cached"], times["loader"]),
        "cached_floor_gb_per_s": speed["cached"],
        "gather_over_floor": median_ratio(times["floor"], times["gather"]),
        **shuffle(TokenOrder(TokenSet(ranges), seed=0), n_videos, n_batches=64),
    }


def _write(folder: Path, n_shards: int) -> Iterator[Shard]:
    generator = np.random.default_rng(0)
    rows = generator.integers(0, 2**16, (SHARD_ROWS, D_IN), dtype=np.uint16)
    for k in range(n_shards):
        path = folder / "c" / str(k) / "0"
        rows[:, 0] = k
        write_shard(path, rows, shard_rows=SHARD_ROWS, chunk_rows=CHUNK_ROWS)
        start = k * SHARD_ROWS
        yield open_shard(
            path,
            row_start=start,
            row_stop=start + SHARD_ROWS,
            n_chunks=SHARD_ROWS // CHUNK_ROWS,
            chunk_rows=CHUNK_ROWS,
            row_bytes=D_IN * 2,
        )


def read_in_order(shards: Sequence[Shard], out: torch.Tensor) -> None:
    """Read every chunk of every shard in order into a buffer that is used again and again."""
    raw = out.view(torch.uint8).numpy().reshape(-1, shards[0].chunk_bytes)
    place = 0
    for shard in shards:
        descriptor = os.open(shard.path, os.O_RDONLY)
        for offset in shard.chunk_offsets.tolist():
            assert os.preadv(descriptor, [raw[place].data], offset) == shard.chunk_bytes
            place = (place + 1) % len(raw)
        os.close(descriptor)


def _gather(shards: list[Shard], pool: torch.Tensor) -> None:
    """Fill the pool in order, and take its rows in shuffled batches."""
    per_pool = len(pool) // SHARD_ROWS
    for first in range(0, len(shards), per_pool):
        part = shards[first : first + per_pool]
        read_in_order(part, pool)
        order = torch.randperm(len(part) * SHARD_ROWS, generator=torch.Generator().manual_seed(first))
        batch = torch.empty(BATCH, D_IN, dtype=torch.bfloat16)
        for rows in order.split(BATCH):
            torch.index_select(pool, 0, rows, out=batch)


def _drain(loader: TokenLoader, start: int, stop: int) -> None:
    for _ in loader.batches(start, stop):
        pass


def shuffle(token_order: TokenOrder, n_videos: int, n_batches: int) -> dict[str, float]:
    """Videos and mates per batch, over the first batches of an epoch, beside independent draws without repetition.

    Args:
        token_order: of the tokens of videos of equal length that lie one after the other from row 0 on.
        n_videos: number of videos.
        n_batches: batches to look at.
    """
    order = _first_rows(token_order, n_batches * BATCH)
    batches = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
    rows_per_video = token_order.n_tokens // n_videos
    videos = [np.bincount(rows // rows_per_video) for rows in batches]
    units = [np.unique(rows // UNIT_ROWS, return_counts=True)[1] for rows in batches]
    share = (BATCH - 1) / (token_order.n_tokens - 1)
    return {
        "videos_per_batch": float(np.mean([(counts > 0).sum() for counts in videos])),
        "videos_per_batch_ideal": n_videos * (1 - (1 - BATCH / token_order.n_tokens) ** rows_per_video),
        "video_mates": float(np.mean([(counts * (counts - 1)).sum() / BATCH for counts in videos])),
        "video_mates_ideal": share * (rows_per_video - 1),
        "local_mates": float(np.mean([(counts * (counts - 1)).sum() / BATCH for counts in units])),
        "local_mates_ideal": share * (UNIT_ROWS - 1),
    }


def _first_rows(token_order: TokenOrder, n_rows: int) -> np.ndarray:
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < min(n_rows, token_order.n_tokens):
        parts.append(token_order.pool(0, len(parts)).in_order())
    return np.concatenate(parts)[:n_rows]


if __name__ == "__main__":
    run_benchmark("loader", measure)
