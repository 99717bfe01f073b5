"""`collect` end to end over what it cannot avoid, and over the script that people write instead.

    collect_over_bound     seconds per video of `collect` in its steady state by the bound
    bound_s                the bound, seconds per video: on a CPU decoding plus the truncated forward passes, which use
                           the same cores; with a GPU the largest of the parts, each by itself, which is also printed
    decode_s               decoding alone, in as many threads as `collect` has
    prepare_s              decoding and preprocessing together, likewise
    forward_s              the truncated forward passes alone, on inputs that are ready
    copy_s                 copying their residuals into pinned memory; 0 on a CPU, where there is nothing to copy
    write_s                writing them into a store
    steady_s               of `collect`: time for all videos less time for a third of them, per video between
    start_s                its time for all videos less `steady_s` for each: start-up and the end
    n_workers              threads that decode: two on a CPU, and with a GPU all cores but two
    naive_speedup          wall time of the naive script by that of `collect`, for a site at half depth: one video after
                           the other through the whole model with a question and `output_hidden_states=True`, then
                           `torch.save`
    tokens_per_s           visual tokens that `collect` stores per second in its steady state
    peak_rss_mib           highest memory of the process during `collect`, the model included
    collect_s, naive_s     wall times for all videos
    tiny_…                 the same for a tiny model, where everything but the model counts

Seconds of parts are per video; all are medians.

The model is a random PerceptionLM of 80 M parameters, float32 on a CPU, or a larger one in bfloat16 on a GPU; videos
are ten seconds of moving shapes at 480 x 360 and 30 frames a second, of which 12 (16 with a GPU) are sampled. The model
is loaded before the clock starts, on both sides. All sides run in turn in one process.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, TypeVar
from unittest import mock

import av
import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Metrics, Options, PeakMemory, alternate, median_ratio, run_benchmark
from benchmarks.made_store import made_grid, made_record
from collect import run
from collect.config import CHUNK_ROWS, CollectConfig
from collect.data.perception_test import load_dataset
from collect.reading import ActivationStore
from collect.store.writer import SiteSpec, StoreWriter
from collect.video.decode import decode_clip
from collect.vlm import VideoVlm, load_vlm
from demo.vlm.architecture import SIZES, Size, build_model, build_processor

BATCH = 4
T = TypeVar("T")
QUESTION = "how many objects did the person put on the table"
MID = Size(
    image_px=112,
    patch_px=14,
    pooling=1,
    vision_width=256,
    vision_layers=4,
    vision_heads=4,
    width=768,
    mlp_width=2304,
    layers=10,
    heads=12,
    kv_heads=12,
)
LARGE = Size(
    image_px=336,
    patch_px=14,
    pooling=2,
    vision_width=1024,
    vision_layers=12,
    vision_heads=16,
    width=2048,
    mlp_width=8192,
    layers=16,
    heads=32,
    kv_heads=8,
)


def measure(options: Options) -> Metrics:
    """Measure the mid-size (or with a GPU the large) model and the tiny one."""
    cuda = torch.cuda.is_available()
    n_videos, n_frames = (6, 4) if options.quick else (48, 16) if cuda else (12, 12)
    with tempfile.TemporaryDirectory(prefix="video-sae-bench-") as name:
        folder = Path(name)
        data = _write_videos(folder / "data", n_videos, seconds=2 if options.quick else 10)
        rounds = 1 if options.quick else 3
        main = _measure_model(folder / "main", LARGE if cuda else MID, data, n_frames, rounds)
        tiny = _measure_model(folder / "tiny", SIZES["tiny"], data, n_frames, rounds)
    return {**main, **{f"tiny_{name}": value for name, value in tiny.items()}}


def _measure_model(folder: Path, size: Size, data: Path, n_frames: int, rounds: int) -> dict[str, float]:
    model: Any = build_model(size, seed=0)
    if torch.cuda.is_available():
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder / "model")
    build_processor(size).save_pretrained(folder / "model")
    del model
    vlm = load_vlm(str(folder / "model"))
    site = f"resid/{size.layers // 2 - 1}"
    workers = max(2, len(os.sched_getaffinity(0)) - 2) if torch.cuda.is_available() else 2
    config = CollectConfig(
        data=data,
        model=str(folder / "model"),
        out=folder / "run",
        sites=(site,),
        frames=str(n_frames),
        batch_size=BATCH,
        workers=workers,
        shard_rows=4096,
    )
    paths = sorted(data.glob("*.mp4"))
    n_videos, n_few = len(paths), len(paths) // 3
    prefixes = _in_threads(workers, paths, lambda path: vlm.prefix(decode_clip(path, path.stem, n_frames)))
    residuals = [vlm.visual_residuals([prefix], [site])[site][0] for prefix in prefixes]
    on_host = [rows.cpu() for rows in residuals]

    def collect(config: CollectConfig = config) -> None:
        shutil.rmtree(config.out, ignore_errors=True)
        with mock.patch.object(run, "load_vlm", return_value=vlm):
            run.collect(config)

    def forward() -> None:
        for i in range(0, n_videos, BATCH):
            vlm.visual_residuals(prefixes[i : i + BATCH], [site])

    sides: dict[str, Callable[[], object]] = {
        "decode": lambda: _in_threads(workers, paths, lambda path: decode_clip(path, path.stem, n_frames)),
        "prepare": lambda: _in_threads(workers, paths, lambda path: vlm.prefix(decode_clip(path, path.stem, n_frames))),
        "forward": forward,
        "write": lambda: _write(folder / "written", config, on_host),
        "collect": collect,
        "few": lambda: collect(replace(config, select=str(n_few))),
        "naive": lambda: _naive(vlm, data, n_frames, size.layers // 2, folder / "naive"),
    }
    if torch.cuda.is_available():
        pinned = [torch.empty(x.shape, dtype=x.dtype, pin_memory=True) for x in residuals]
        sides["copy"] = lambda: [host.copy_(x, non_blocking=True) for host, x in zip(pinned, residuals, strict=True)]
    times = alternate(sides, rounds)
    with PeakMemory() as memory:
        collect()
    n_tokens = ActivationStore.open(config.out / "activations").n_tokens
    steady = [(a - b) / (n_videos - n_few) for a, b in zip(times["collect"], times["few"], strict=True)]
    per_video = {name: [value / n_videos for value in times[name]] for name in sides if name not in ("few", "naive")}
    if torch.cuda.is_available():
        parts = ("prepare", "forward", "copy", "write")
        bound = [max(values) for values in zip(*(per_video[name] for name in parts), strict=True)]
        name = max(parts, key=lambda part: median(per_video[part]))
        print(f"{folder.name} model: bounded by {'decoding and preprocessing' if name == 'prepare' else name}")
    else:
        bound = [a + b for a, b in zip(per_video["forward"], per_video["decode"], strict=True)]
    return {
        "collect_over_bound": median_ratio(steady, bound),
        "bound_s": median(bound),
        **{
            f"{name}_s": median(per_video.get(name, [0.0]))
            for name in ("decode", "prepare", "forward", "copy", "write")
        },
        "steady_s": median(steady),
        "start_s": median(a - n_videos * b for a, b in zip(times["collect"], steady, strict=True)),
        "n_workers": workers,
        "naive_speedup": median_ratio(times["naive"], times["collect"]),
        "tokens_per_s": n_tokens / n_videos / median(steady),
        "peak_rss_mib": memory.mib,
        **{f"{name}_s": median(times[name]) for name in ("collect", "naive")},
    }


def _in_threads(workers: int, paths: Sequence[Path], work: Callable[[Path], T]) -> list[T]:
    """Do something with every video, in as many threads as `collect` has."""
    with ThreadPoolExecutor(max_workers=workers) as executor:
        return list(executor.map(work, paths))


def _write(folder: Path, config: CollectConfig, residuals: Sequence[Tensor]) -> None:
    """Write residuals, which are on the CPU, as `collect` does, as one video each."""
    shutil.rmtree(folder, ignore_errors=True)
    specs = {config.sites[0]: SiteSpec(d_in=residuals[0].shape[1], dtype=residuals[0].dtype)}
    with StoreWriter(folder, 0, specs, shard_rows=config.shard_rows, chunk_rows=CHUNK_ROWS, model={}) as writer:
        for index, rows in enumerate(residuals):
            writer.add_video(made_record(index, writer.next_row, made_grid(1, 1, len(rows))), {config.sites[0]: rows})
        writer.finish()


def _naive(vlm: VideoVlm, data: Path, n_frames: int, n_layers: int, out: Path) -> None:
    """What people write: everything in one loop, the whole model, all hidden states, a file per video."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    network: Any = vlm.model
    suffix = vlm.suffix(QUESTION)
    for video in load_dataset(data).videos:
        assert video.path is not None
        prefix = vlm.prefix(decode_clip(video.path, video.video_id, n_frames))
        ids = torch.cat([prefix.input_ids[0], suffix.cpu()])[None].to(vlm.device)
        pixels = {name: x.to(vlm.device, vlm.dtype) for name, x in prefix.pixels.items()}
        with torch.no_grad():
            output = network(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True, **pixels)
        hidden = output.hidden_states[n_layers][0, prefix.visual_positions.to(vlm.device)]
        torch.save(hidden.clone().cpu(), out / f"{video.video_id}.pt")


def _write_videos(folder: Path, n: int, seconds: int) -> Path:
    """Encode videos of moving shapes over noise, which neither encoder nor decoder finds trivial."""
    folder.mkdir()
    height, width, rate = 360, 480, 30
    for index in range(n):
        rng = np.random.default_rng(index)
        ground = rng.integers(0, 200, (height // 4, width // 4, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        with av.open(str(folder / f"v{index:03d}.mp4"), "w") as container:
            stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for t in range(seconds * rate):
                image = np.roll(ground, (t, 2 * t), axis=(0, 1))
                image[100:180, (5 * t) % 400 : (5 * t) % 400 + 60] = 250
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(stream.encode())
    return folder


if __name__ == "__main__":
    run_benchmark("collect", measure)
