"""What a whole training reaches of what its step promises: `video-sae train` on a store, against the bare step.

    step_share           tokens/s of the command's loop by those of the bare step, the store in the page cache
    disk_share           the same from a disk, nothing of the store in the page cache, by the lesser of the bare step's
                         tokens/s and the disk's
    step_tokens_per_s    of the bare step: BatchTopK on batches that are on the device already, in a process of its own
    train_tokens_per_s   of the command's loop, from the second line of its `metrics.jsonl` on: loader, copies to the
                         device, normalisation, steps, statistics; the first line has the first pass's set-up
    cold_tokens_per_s    the same from a disk
    disk_tokens_per_s    of `preadv` of the store's chunks in file order from the disk into one reused buffer
    disk_gb_per_s        the same in GB/s
    outside_s            seconds of the command outside its loop: imports, reading the store, measuring norms, the two
                         evaluations, and writing the SAE's folder

The command runs as a process, as its user would run it, with its defaults but for the SAE's size, the length, and a
line of metrics after every few steps. It verifies every chunk, and reads every token once, but three times on a GPU if
the store is in the page cache: there 1,200 steps have a checkpoint among them, which CPUs write every few minutes. The
bare step, many in a row, is timed before and after each command. The disk is what holds the temporary folder (set
TMPDIR for another): pages are dropped with `posix_fadvise`, which does nothing on a file system in memory, and the
numbers of the disk are then those of memory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Metrics, Options, median_ratio, run_benchmark, seconds
from benchmarks.loader import read_in_order
from benchmarks.made_store import made_grid, write_store
from benchmarks.processes import Side
from benchmarks.sizes import CUDA, QUICK_SIZES, SIZES, Size, batches
from benchmarks.train import our_step
from collect.config import CHUNK_ROWS
from collect.process.device import resolve_dtype
from collect.reading import ActivationStore
from train_sae.reading import METRICS_NAME
from train_sae.step.memory import freed_memory_kept

SITE, NAME = "resid/0", "sae"
SIDE, N_T = 16, 16
VIDEO_TOKENS = SIDE * SIDE * N_T
MODEL = {"name": "made up", "fingerprint": "0" * 64}


def measure(options: Options) -> Metrics:
    """Measure a store in a temporary folder."""
    cuda = torch.cuda.is_available()
    size = CUDA if cuda else QUICK_SIZES["small"] if options.quick else SIZES["medium"]
    n_steps, log_every, n_epochs = (400, 50, 3) if cuda else (8, 2, 1) if options.quick else (40, 8, 1)
    rounds = 1 if options.quick else 3 if cuda else 2
    rates: dict[str, list[float]] = {"step": [], "train": [], "step_cold": [], "cold": [], "disk": []}
    outside: list[float] = []
    with tempfile.TemporaryDirectory() as name, Side(bare_step, freed_memory_kept) as step:
        folder = Path(name)
        store = planted_store(folder / "activations", size, n_steps)
        chunk = torch.empty(CHUNK_ROWS, size.d_in, dtype=torch.bfloat16)
        step.prepare(size)

        def steps_per_s() -> float:
            n_calls = max(n_steps // 4, 1)
            return n_calls / step.seconds(n_calls)

        for kind in ("train", "cold") * rounds:
            before = steps_per_s()
            if kind == "cold":
                drop_pages(store)
                rates["disk"].append(store.n_tokens / seconds(lambda: read_in_order(store.shards(SITE), chunk)))
                drop_pages(store)
            loop_rate, outside_s = train(folder, size, n_steps, log_every, n_epochs if kind == "train" else 1)
            rates[kind].append(loop_rate)
            rates["step" if kind == "train" else "step_cold"].append(0.5 * (before + steps_per_s()) * size.batch_size)
            outside.append(outside_s)
    bound = [min(pair) for pair in zip(rates["step_cold"], rates["disk"], strict=True)]
    disk = float(np.median(rates["disk"]))
    return {
        "step_share": median_ratio(rates["train"], rates["step"]),
        "disk_share": median_ratio(rates["cold"], bound),
        "step_tokens_per_s": float(np.median(rates["step"])),
        "train_tokens_per_s": float(np.median(rates["train"])),
        "cold_tokens_per_s": float(np.median(rates["cold"])),
        "disk_tokens_per_s": disk,
        "disk_gb_per_s": disk * size.d_in * 2 / 1e9,
        "outside_s": float(np.median(outside)),
    }


def bare_step(size: Size) -> Callable[[], object]:
    """One step on the next batch, in the precision that `train` takes by default."""
    dtype = resolve_dtype("auto", torch.device(size.device))
    return our_step(size, "batchtopk", torch.bfloat16 if dtype == "bfloat16" else torch.float32)


def planted_store(folder: Path, size: Size, n_steps: int) -> ActivationStore:
    """A store of as many train tokens as the steps take, and of one held-out video, in bfloat16."""
    n_train = -(-n_steps * size.batch_size // VIDEO_TOKENS)
    source = cycle(torch.cat([batch.cpu() for batch in batches(size)]).bfloat16().split(VIDEO_TOKENS))

    def video() -> Tensor:
        x = next(source)
        while len(x) < VIDEO_TOKENS:
            x = torch.cat([x, next(source)])
        return x[:VIDEO_TOKENS]

    splits = [*["train"] * n_train, "valid"]
    videos = ((split, video()) for split in splits)
    return write_store(folder, SITE, size.d_in, videos, made_grid(N_T, SIDE, SIDE), model=MODEL)


def train(folder: Path, size: Size, n_steps: int, log_every: int, n_epochs: int) -> tuple[float, float]:
    """Run the command.

    Returns:
        Tokens per second of its loop, and the seconds that it took besides.
    """
    run = folder / "run"
    shutil.rmtree(run / "sae", ignore_errors=True)
    run.mkdir(exist_ok=True)
    if not (run / "activations").exists():
        (run / "activations").symlink_to(folder / "activations", target_is_directory=True)
    words = [sys.executable, "-m", "video_sae", "train", "--run", str(run), "--site", SITE, "--name", NAME]
    words += ["--d-sae", str(size.d_sae), "--k", str(size.k), "--batch-size", str(size.batch_size)]
    words += ["--epochs", str(n_epochs), "--options", f"log_every={log_every}"]
    began = time.perf_counter()
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - began
    lines = [json.loads(line) for line in (run / "sae" / NAME / METRICS_NAME).read_text().splitlines()]
    assert lines[-1]["step"] >= n_steps * n_epochs, lines[-1]
    took = [line["n_steps"] * size.batch_size / line["tokens_per_s"] for line in lines]
    n_tokens = sum(line["n_steps"] for line in lines[1:]) * size.batch_size
    return n_tokens / sum(took[1:]), wall - sum(took)


def drop_pages(store: ActivationStore) -> None:
    """Have the system forget what it holds of the store's files in memory."""
    for shard in store.shards(SITE):
        descriptor = os.open(shard.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


if __name__ == "__main__":
    run_benchmark("train_e2e", measure)
