"""How the features stage grows: encoding against its matrix product, association, and reading one latent.

    pass_over_gemm           the encode pass (read, encode, write the codes by token and by latent) over the encoder's
                             matrix product of the same tokens in the same batches, [token, 2048] by [2048, 32768], with
                             64 active latents a token. Codes are written to the disk. Seconds of processor time, which
                             other work on the machine changes less; `pass_over_gemm_wall` is by the clock
    pass_tokens_per_s        of the pass, by the clock
    association_seconds      everything after the codes at 1/16 of the benchmark's size: labels, activity, scores, pairs
                             with 1,000 permutations and bootstraps, exemplars, and 512 controls. One process, wall time
    association_cpu_seconds  the same in seconds of processor time
    peak_rss_mib             highest resident memory during that; `small_…` are the same numbers at 1/64
    n_labels                 labels, all of which are scored
    n_pairs, n_significant   pairs tested, and those with p ≤ 0.05, which get all permutations
    growth_videos            exponent of processor time with 4 times the videos, from 1/64 to 1/16; 1 is linear
    growth_tokens            the same with 4 times the frames of the same videos, at 1/64
    growth_memory            exponent of `peak_rss_mib`, less what is resident before, with 4 times the videos
    column_read_ms           one latent's tokens, activations and exemplars: median over latents, from codes that are
                             open, in the page cache, for latents with as many activations as at the whole size
    column_read_small_ms     the same for single latents of 1/16
    whole_benchmark_hours    `association_cpu_seconds` times 16 to the power `growth_videos`, or 16 where that is less
                             than 1: processor time at the whole size, which processes share
    whole_benchmark_gib      `peak_rss_mib` of one process at the whole size, on the straight line through both sizes

The whole size is 2,184 train and 5,900 held-out videos of 32 frames of 144 tokens, 37 M tokens, 32,768 latents, 64
active a token; `benchmarks.planted_codes` says what stands in for them. Reads at the whole size find the same number of
entries in the same chunks of 1 MiB; only the files are more. With `--large`, the numbers without prefix are at 1/4,
those with `small_` at 1/16 and those with `smallest_` at 1/64, and growth is from 1/16 to 1/4, `smallest_growth_…` from
1/64 to 1/16. That takes hours and 16 GB of disk; with `--parts DIR` it can be done in several goes.
"""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.harness import (
    Metrics,
    Options,
    PeakMemory,
    alternate,
    kept_part,
    median_ratio,
    medians,
    run_benchmark,
)
from benchmarks.made_store import made_grid, write_store
from benchmarks.planted_codes import D_SAE, HELD_OUT, L0, SIDE, TRAIN, make_controls, make_corpus, write_codes
from collect.reading import VideoRecord
from features.activity import measure_activity
from features.association.associate import associate
from features.codes import Codes
from features.codes_by_latent import write_by_latent
from features.config import FeaturesConfig
from features.encoding import encode_store
from features.exemplars import top_tokens, top_tokens_of
from train_sae.sae import Sae
from train_sae.step.linear import linear

D_IN, SITE = 2048, "resid/0"
N_READS = 40
REPORTED = ("association_seconds", "association_cpu_seconds", "peak_rss_mib", "n_labels", "n_pairs", "n_significant")
WHOLE_NONZEROS = (TRAIN + HELD_OUT) * 32 * SIDE * SIDE * L0


def measure(options: Options) -> Metrics:
    """Measure in a temporary folder."""
    torch.manual_seed(0)
    metrics = kept_part(options, "encode", lambda: encode_pass(options))
    shares = [1 / 64, 1 / 16, *([1 / 4] if options.large else [])]
    if options.quick:
        shares = [1 / 512, 1 / 128]
    few_frames = associated(shares[-2], 8, options)
    sizes = [associated(share, 32, options) for share in shares]
    for prefix, size in zip(("", "small_", "smallest_"), reversed(sizes), strict=False):
        metrics |= {f"{prefix}{name}": size[name] for name in REPORTED}
    for prefix, before, after in zip(("", "smallest_"), sizes[-2::-1], sizes[:0:-1], strict=False):
        metrics[f"{prefix}growth_videos"] = exponent(
            after["association_cpu_seconds"], before["association_cpu_seconds"]
        )
        metrics[f"{prefix}growth_memory"] = exponent(
            *(size["peak_rss_mib"] - size["resident"] for size in (after, before))
        )
    before, after = sizes[-2:]
    times, peaks = 1 / shares[-1], (after["peak_rss_mib"], before["peak_rss_mib"])
    slope = (peaks[0] - peaks[1]) / (shares[-1] - shares[-2])
    return {
        **metrics,
        "growth_tokens": exponent(before["association_cpu_seconds"], few_frames["association_cpu_seconds"]),
        "column_read_ms": after["column_read_ms"],
        "column_read_small_ms": after["column_read_small_ms"],
        "whole_benchmark_hours": after["association_cpu_seconds"] * times ** max(metrics["growth_videos"], 1.0) / 3600,
        "whole_benchmark_gib": (peaks[0] + slope * (1 - shares[-1])) / 1024,
    }


def exponent(more: float, less: float) -> float:
    """Power of the size with which something grows that is `more` at 4 times the size."""
    return math.log(more / less) / math.log(4)


def associated(share: float, n_t: int, options: Options) -> dict[str, float]:
    """Everything after the codes, for a share of the benchmark's videos."""
    return kept_part(options, f"association-{round(1 / share)}-{n_t}", lambda: _associate(share, n_t, options))


def _associate(share: float, n_t: int, options: Options) -> Metrics:
    config = FeaturesConfig(run=Path("run"), permutations=99 if options.quick else 1000)
    with tempfile.TemporaryDirectory() as folder:
        codes = write_codes(Path(folder) / "codes.zarr", make_corpus(share, n_t), d_sae=512 if options.quick else D_SAE)
        write_by_latent(codes)
        controls = make_controls(codes.n_tokens)
        with PeakMemory() as resident:
            pass
        begun, cpu_begun = time.perf_counter(), time.process_time()
        with PeakMemory() as memory:
            corpus = make_corpus(share, n_t)
            activity = measure_activity(codes, corpus.records)
            found = associate(codes, controls, corpus, activity.firing_rate, config)
            top_tokens(codes, corpus.records, n=config.exemplars, per_video=config.exemplars_per_video)
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
        p_values = found.table.get("p_value", pd.Series(dtype=float))
        return {
            "association_seconds": seconds,
            "association_cpu_seconds": cpu_seconds,
            "peak_rss_mib": memory.mib,
            "resident": resident.mib,
            "n_labels": len(corpus.all_labels()),
            "n_pairs": len(found.selection.latent),
            "n_significant": int((p_values <= config.fdr).sum()),
            "column_read_ms": _read_ms(codes, corpus.records, max(round(WHOLE_NONZEROS / codes.n_nonzeros), 1)),
            "column_read_small_ms": _read_ms(codes, corpus.records, 1),
        }


def _read_ms(codes: Codes, records: Sequence[VideoRecord], n_latents: int) -> float:
    """Median time to read and rank what some neighbouring latents hold together, as if they were one."""
    n_latents = min(n_latents, codes.d_sae)
    video_of_token = np.repeat(np.arange(len(records)), [record.n_tokens for record in records]).astype(np.int32)
    codes.column(0)  # opens the copy
    times: list[float] = []
    for first in np.random.default_rng(0).integers(0, codes.d_sae - n_latents + 1, N_READS):
        begun = time.perf_counter()
        found = codes.by_latent(np.arange(first, first + n_latents))
        joined = type(found)((found.data, found.indices, [0, found.nnz]), shape=(codes.n_tokens, 1))
        top_tokens_of(joined, np.array([first]), video_of_token, n=8, per_video=1)
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times))


def encode_pass(options: Options) -> Metrics:
    """The encode pass and the product of the encoder, in turn, in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return _encode_pass(Path(folder), options)


def _encode_pass(folder: Path, options: Options) -> Metrics:
    d_in, d_sae, n_tokens, batch = (64, 512, 2048, 512) if options.quick else (D_IN, D_SAE, 8192, 4096)
    store = write_store(
        folder / "activations",
        SITE,
        d_in,
        [("train", torch.randn(n_tokens, d_in))],
        made_grid(n_tokens // 128, 8, 16),
        shard_rows=2048,
        chunk_rows=256,
        model={},
    )
    x = store.read(SITE, 0, n_tokens)
    W_enc = torch.randn(d_in, d_sae) / math.sqrt(d_in)
    some = (x[:256].float() @ W_enc).flatten()
    threshold = float(some.kthvalue(round(len(some) * (1 - L0 / d_sae))).values)
    sae = Sae(
        architecture="jumprelu",
        k=L0,
        W_enc=W_enc,
        W_dec=W_enc.T.contiguous(),
        b_enc=torch.zeros(d_sae),
        b_dec=torch.zeros(d_in),
        threshold=torch.full((d_sae,), threshold),
        metadata={"hook_name": SITE, "k": L0},
    )
    numbers = iter(range(100))

    def encode() -> None:
        place = folder / str(next(numbers))
        place.mkdir()
        encode_store(store, sae, place / "codes.zarr", batch_size=batch, device=torch.device("cpu"))

    def product() -> None:
        for rows in x.split(batch):
            linear(rows.float(), sae.W_enc.T)  # the encoder's own kernel, which may be faster than torch.mm

    cpu: dict[str, list[float]] = {"pass": [], "product": []}

    def timed(side: str, work: Callable[[], None]) -> Callable[[], None]:
        def both() -> None:
            begun = time.process_time()
            work()
            cpu[side].append(time.process_time() - begun)

        return both

    sides = {"pass": timed("pass", encode), "product": timed("product", product)}
    times = alternate(sides, rounds=1 if options.quick else 5)
    return {
        "pass_over_gemm": median_ratio(cpu["pass"][1:], cpu["product"][1:]),  # the first of each warms up
        "pass_over_gemm_wall": median_ratio(times["pass"], times["product"]),
        "pass_tokens_per_s": n_tokens / medians(times)["pass"],
    }


if __name__ == "__main__":
    run_benchmark(
        "features", measure, large="sizes up to 1/4 of the benchmark's instead of 1/16: hours, and 16 GB of disk"
    )
