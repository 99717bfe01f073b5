"""Throughput of the activation store over that of the bare disk: 1 is as fast as the disk, more is better.

    write_over_floor              GB/s of `StoreWriter` (checksums, moments, commits, fsync) by GB/s of bare `tofile`
    write_over_durable_floor      the same by GB/s of `tofile` and one fsync a shard, as crash safety needs
    read_seq_over_floor           GB/s of `ActivationStore.read` in order, every checksum verified, by GB/s of `preadv`
    read_shuffled_over_floor      the same for chunks of 256 rows in random order
    read_unverified_over_floor    GB/s in order by `Shard` offsets alone, without checksums, by GB/s of `preadv`
    plain_zarr_read_over_floor    GB/s of plain zarr over the same array, in order, by GB/s of `preadv`
    write_gb_per_s, floor_write_gb_per_s, read_seq_gb_per_s, floor_read_gb_per_s
                                  the speeds behind the ratios, which depend on the disk

Rows are [n, 2048] bfloat16 at one site, shards of 16384 rows, page cache warm, all sides in turn in one process.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from benchmarks.harness import Metrics, Options, alternate, median_ratio, medians, run_benchmark
from collect.config import CHUNK_ROWS
from collect.reading import ActivationStore, VideoRecord
from collect.store.manifest import write_manifest
from collect.store.writer import SiteSpec, StoreWriter
from collect.tokens.grid import TokenGrid, frame_spans

SITE = "resid/0"
D_IN = 2048
SHARD_ROWS = 16384
N_T, SIDE = 16, 14


def measure(options: Options) -> Metrics:
    """Write and read a store beside the floors."""
    n_videos = 8 if options.quick else 42
    video = torch.randn(N_T * SIDE * SIDE, D_IN, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    n_rows = n_videos * len(video)
    shard_bytes = video.view(torch.uint16).numpy().tobytes() * (-(-SHARD_ROWS // len(video)))
    shard = np.frombuffer(shard_bytes, dtype=np.uint16)[: SHARD_ROWS * D_IN].reshape(SHARD_ROWS, D_IN)
    n_bytes = n_rows * D_IN * 2
    rounds = 1 if options.quick else 3
    with tempfile.TemporaryDirectory(prefix="video-sae-bench-") as name:
        folder = Path(name)
        store_folder, raw = folder / "store", folder / "raw"

        def write() -> None:
            shutil.rmtree(store_folder, ignore_errors=True)
            _write_store(store_folder, video, n_videos)

        def to_file(*, durable: bool) -> None:
            shutil.rmtree(raw, ignore_errors=True)
            raw.mkdir()
            for k in range(-(-n_rows // SHARD_ROWS)):
                with (raw / str(k)).open("wb", buffering=0) as file:
                    shard[: min(SHARD_ROWS, n_rows - k * SHARD_ROWS)].tofile(file)
                    if durable:
                        os.fsync(file.fileno())

        written = alternate(
            {"store": write, "floor": lambda: to_file(durable=False), "durable": lambda: to_file(durable=True)}, rounds
        )
        store = ActivationStore.open(store_folder)
        read = alternate(_readers(store, n_rows), rounds)
    speeds = {name: n_bytes / 1e9 / s for name, s in {**medians(written), **medians(read)}.items()}
    return {
        "write_over_floor": median_ratio(written["floor"], written["store"]),
        "write_over_durable_floor": median_ratio(written["durable"], written["store"]),
        "read_seq_over_floor": median_ratio(read["preadv"], read["sequential"]),
        "read_shuffled_over_floor": median_ratio(read["preadv_shuffled"], read["shuffled"]),
        "read_unverified_over_floor": median_ratio(read["preadv"], read["unverified"]),
        "plain_zarr_read_over_floor": median_ratio(read["preadv"], read["zarr"]),
        "write_gb_per_s": speeds["store"],
        "floor_write_gb_per_s": speeds["floor"],
        "read_seq_gb_per_s": speeds["sequential"],
        "floor_read_gb_per_s": speeds["preadv"],
    }


def _write_store(folder: Path, video: torch.Tensor, n_videos: int) -> None:
    ids = np.arange(N_T, dtype=np.int64)
    grid = TokenGrid.uniform(n_rows=SIDE, n_cols=SIDE, spans_s=frame_spans(ids * 1.0, 1.0), frame_ids=ids)
    with StoreWriter(folder, 0, {SITE: SiteSpec(d_in=D_IN, dtype=torch.bfloat16)}, shard_rows=SHARD_ROWS) as writer:
        for index in range(n_videos):
            record = VideoRecord(
                index=index,
                video_id=f"v{index}",
                path=f"v{index}.mp4",
                split="",
                row_start=index * len(video),
                row_stop=(index + 1) * len(video),
                grid=grid,
                frame_rate=1.0,
                n_frames=N_T,
                width=64,
                height=64,
            )
            writer.add_video(record, {SITE: video})
        writer.finish()
    write_manifest(folder, [0])


def _readers(store: ActivationStore, n_rows: int) -> dict[str, Callable[[], object]]:
    """Ways of reading every row of the site once."""
    shards = store.shards(SITE)
    row_bytes = D_IN * 2
    buffer = np.empty(SHARD_ROWS * row_bytes, dtype=np.uint8)
    order = np.random.default_rng(0).permutation(n_rows // CHUNK_ROWS)
    array: Any = zarr.open_group(store.folder / "rank-0.zarr", mode="r", use_consolidated=False)[SITE]

    def preadv(*, shuffled: bool) -> None:
        """The floor: as many bytes from the same files into one buffer, without looking at them."""
        descriptors = [os.open(shard.path, os.O_RDONLY) for shard in shards]
        step = CHUNK_ROWS * row_bytes if shuffled else len(buffer)
        per_shard = SHARD_ROWS * row_bytes // step
        places = order if shuffled else range(-(-n_rows * row_bytes // step))
        for place in places:
            k, within = divmod(int(place), per_shard)
            wanted = min(step, (n_rows - k * SHARD_ROWS) * row_bytes - within * step)
            os.preadv(descriptors[k], [buffer.data[:wanted]], within * step)
        for descriptor in descriptors:
            os.close(descriptor)

    def sequential() -> None:
        for start in range(0, n_rows, SHARD_ROWS):
            store.read(SITE, start, min(start + SHARD_ROWS, n_rows))

    def shuffled() -> None:
        for chunk in order:
            store.read(SITE, int(chunk) * CHUNK_ROWS, int(chunk + 1) * CHUNK_ROWS)

    def unverified() -> None:
        for shard in shards:
            descriptor = os.open(shard.path, os.O_RDONLY)
            for chunk, offset in enumerate(shard.chunk_offsets):
                n = min(CHUNK_ROWS, shard.n_rows - chunk * CHUNK_ROWS) * row_bytes
                at = chunk * CHUNK_ROWS * row_bytes
                os.preadv(descriptor, [buffer.data[at : at + n]], int(offset))
            os.close(descriptor)

    def plain_zarr() -> None:
        for start in range(0, n_rows, SHARD_ROWS):
            array[start : min(start + SHARD_ROWS, n_rows)]

    return {
        "preadv": lambda: preadv(shuffled=False),
        "preadv_shuffled": lambda: preadv(shuffled=True),
        "sequential": sequential,
        "shuffled": shuffled,
        "unverified": unverified,
        "zarr": plain_zarr,
    }


if __name__ == "__main__":
    run_benchmark("store", measure)
