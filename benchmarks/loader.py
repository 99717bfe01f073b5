"""How fast shuffled batches come, and how well they are shuffled.

    loader_over_floor      GB/s of `TokenLoader`, shuffled, by GB/s of the floor
    floor_gb_per_s         `preadv` of whole chunks, in order, into one reused buffer, by one thread
    gb_per_s               of the loader, checksums already verified
    verifying_gb_per_s     of its first pass, which verifies them
    threads_floor_gb_per_s the floor with the loader's number of threads
    videos_per_batch       different videos in a batch, mean over batches; `_ideal` of as many independent draws
    video_mates            other tokens of the same video in the batch, per token; `_ideal` likewise
    local_mates            other tokens of the same unit of 64 rows, per token; `_ideal` likewise
    wide_*                 the shuffle numbers at the size of Perception Test (10,500 videos of 6,272 tokens), from the
                           plan alone

The store is [token, 2048] bfloat16 in shards of 16,384 rows with chunks of 256, read warm: it fits into memory. Batches
of 8,192 tokens are taken and not used.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from benchmarks.harness import Metrics, Options, alternate, median_ratio, medians, run_benchmark, seconds
from collect.shards import Shard, open_shard, write_shard
from train_sae.loader import TokenLoader
from train_sae.plan import Plan
from train_sae.shard_reader import ShardReader
from train_sae.token_set import RowRange, TokenSet

D_IN, SHARD_ROWS, CHUNK_ROWS, BATCH = 2048, 16384, 256, 8192
WIDE_VIDEOS, WIDE_TOKENS = 10_500, 6_272


def measure(options: Options) -> Metrics:
    """Measure a store in a temporary folder."""
    n_shards, rounds = (4, 2) if options.quick else (64, 5)
    with tempfile.TemporaryDirectory() as folder:
        shards = list(_write(Path(folder), n_shards))
        n_rows = n_shards * SHARD_ROWS
        video_rows = WIDE_TOKENS if not options.quick else 512
        videos = tuple(RowRange(start, min(start + video_rows, n_rows)) for start in range(0, n_rows, video_rows))
        reader = ShardReader(shards, torch.bfloat16)
        loader = TokenLoader(reader, TokenSet(videos), batch_size=BATCH, seed=0)
        steps = n_rows // BATCH
        first = seconds(lambda: _drain(loader, 0, steps))
        epoch = iter(range(1, 100))
        threads = min(4, os.cpu_count() or 1)

        def take() -> None:
            start = next(epoch) * steps
            _drain(loader, start, start + steps)

        times = alternate(
            {"floor": lambda: _floor(shards, 1), "loader": take, "threads": lambda: _floor(shards, threads)},
            rounds=rounds,
        )
        gigabytes = n_rows * D_IN * 2 / 1e9
        speed = {name: gigabytes / value for name, value in medians(times).items()}
        shuffle = _shuffle(loader.plan, np.array([rows.start for rows in videos]), n_batches=steps)
    wide_videos = 200 if options.quick else WIDE_VIDEOS
    ranges = tuple(RowRange(i * WIDE_TOKENS, (i + 1) * WIDE_TOKENS) for i in range(wide_videos))
    wide = _shuffle(Plan(TokenSet(ranges), seed=0), np.arange(wide_videos) * WIDE_TOKENS, n_batches=20)
    return {
        "loader_over_floor": median_ratio(times["floor"], times["loader"]),
        "gb_per_s": speed["loader"],
        "floor_gb_per_s": speed["floor"],
        "threads_floor_gb_per_s": speed["threads"],
        "verifying_gb_per_s": gigabytes / first,
        **shuffle,
        **{f"wide_{name}": value for name, value in wide.items()},
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


def _floor(shards: list[Shard], threads: int) -> None:
    """Read every chunk of every shard in order into a buffer that is used again and again."""

    def read(part: list[Shard]) -> None:
        buffer = memoryview(bytearray(shards[0].chunk_bytes))
        for shard in part:
            descriptor = os.open(shard.path, os.O_RDONLY)
            for offset in shard.chunk_offsets.tolist():
                assert os.preadv(descriptor, [buffer], offset) == len(buffer)
            os.close(descriptor)

    if threads == 1:
        read(shards)
        return
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(read, [shards[i::threads] for i in range(threads)]))


def _drain(loader: TokenLoader, start: int, stop: int) -> None:
    for _ in loader.batches(start, stop):
        pass


def _shuffle(plan: Plan, video_starts: np.ndarray, n_batches: int) -> dict[str, float]:
    """Videos and mates per batch, over the first batches of an epoch, beside independent draws without repetition."""
    order = _first_rows(plan, n_batches * BATCH)
    n_batches = len(order) // BATCH
    batches = order[: n_batches * BATCH].reshape(n_batches, BATCH)
    videos = [
        np.unique(np.searchsorted(video_starts, rows, side="right") - 1, return_counts=True)[1] for rows in batches
    ]
    units = [np.unique(rows // 64, return_counts=True)[1] for rows in batches]
    n_rows, n_videos = plan.n_tokens, len(video_starts)
    share = BATCH / n_rows
    rows_per_video = n_rows / n_videos
    return {
        "videos_per_batch": float(np.mean([len(counts) for counts in videos])),
        "videos_per_batch_ideal": n_videos * (1 - (1 - share) ** rows_per_video),
        "video_mates": float(np.mean([(counts * (counts - 1)).sum() / BATCH for counts in videos])),
        "video_mates_ideal": share * (rows_per_video - 1),
        "local_mates": float(np.mean([(counts * (counts - 1)).sum() / BATCH for counts in units])),
        "local_mates_ideal": share * 63,
    }


def _first_rows(plan: Plan, n_rows: int) -> np.ndarray:
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < min(n_rows, plan.n_tokens):
        parts.append(plan.pool(0, len(parts)).in_order())
    return np.concatenate(parts)[:n_rows]


if __name__ == "__main__":
    run_benchmark("loader", measure)
