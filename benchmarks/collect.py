"""`collect` end to end over what it cannot avoid, and over the script that people write instead.

    collect_over_bound     wall time of `collect` by the bound: a + b on a CPU, where both use the same cores, and the
                           larger of the two with a GPU; a = the truncated forward passes alone, on inputs that are
                           ready, b = decoding alone, with as many threads
    naive_speedup          wall time of the naive script by that of `collect`, for a site at half depth: one video after
                           the other through the whole model with a question and `output_hidden_states=True`, then
                           `torch.save`
    tokens_per_s           visual tokens that `collect` stores per second
    peak_rss_mib           highest memory of the process during `collect`, the model included
    forward_s, decode_s, prepare_s, collect_s, naive_s
                           medians of the wall times; `prepare_s` is preprocessing alone, which the bound does not count
    tiny_…                 the same for a tiny model, where everything but the model counts

The model is a random PerceptionLM of 80 M parameters, float32 on a CPU, or a larger one in bfloat16 on a GPU; videos
are ten seconds of moving shapes at 480 x 360 and 30 frames a second, of which 12 (16 with a GPU) are sampled. The model
is loaded before the clock starts, on both sides. All sides run in turn in one process.
"""

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import av
import numpy as np
import torch

from benchmarks.harness import Metrics, Options, PeakMemory, alternate, median_ratio, medians, run_benchmark
from collect import run
from collect.config import CollectConfig
from collect.data.perception_test import load_dataset
from collect.reading import ActivationStore
from collect.video.decode import Clip, decode_clip
from collect.vlm import VideoVlm, load_vlm
from demo.vlm.architecture import SIZES, Size, build_model, build_processor

BATCH, WORKERS = 4, 2
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
    n_videos, n_frames = (4, 4) if options.quick else (48, 16) if cuda else (12, 12)
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
    config = CollectConfig(
        data=data,
        model=str(folder / "model"),
        out=folder / "run",
        sites=(site,),
        frames=str(n_frames),
        batch_size=BATCH,
        workers=WORKERS,
        shard_rows=4096,
    )
    clips = _decoded(data, n_frames)
    prefixes = [vlm.prefix(clip) for clip in clips]

    def forward() -> None:
        for i in range(0, len(prefixes), BATCH):
            vlm.visual_residuals(prefixes[i : i + BATCH], [site])

    def collect() -> None:
        shutil.rmtree(config.out, ignore_errors=True)
        with mock.patch.object(run, "load_vlm", return_value=vlm):
            run.collect(config)

    sides: dict[str, Callable[[], object]] = {
        "forward": forward,
        "decode": lambda: _decoded(data, n_frames),
        "prepare": lambda: [vlm.prefix(clip) for clip in clips],
        "collect": collect,
        "naive": lambda: _naive(vlm, data, n_frames, size.layers // 2, folder / "naive"),
    }
    times = alternate(sides, rounds)
    with PeakMemory() as memory:
        collect()
    n_tokens = ActivationStore.open(config.out / "activations").n_tokens
    both = zip(times["forward"], times["decode"], strict=True)
    bound = [max(a, b) if torch.cuda.is_available() else a + b for a, b in both]
    return {
        "collect_over_bound": median_ratio(times["collect"], bound),
        "naive_speedup": median_ratio(times["naive"], times["collect"]),
        "tokens_per_s": n_tokens / medians(times)["collect"],
        "peak_rss_mib": memory.mib,
        **{f"{name}_s": value for name, value in medians(times).items()},
    }


def _decoded(data: Path, n_frames: int) -> list[Clip]:
    """Decode every video, in as many threads as `collect` has."""
    with ThreadPoolExecutor(max_workers=WORKERS) as executor:
        return list(executor.map(lambda path: decode_clip(path, path.stem, n_frames), sorted(data.glob("*.mp4"))))


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
