"""Training examples for the demo model: sampled frames, labels of every visual token, and tokenised questions.

Frames are drawn directly (no MP4 in between); held-out accuracy is measured on decoded MP4 files by
`demo.evaluate_vlm`, from scenes of another seed.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from demo.draw import Painter
from demo.world import SAMPLES, Scene, draw_scene

SHORT_SIDE = 168  # drawn at this size and squashed to the model's: the blur of a decoded 240-pixel video
CHUNK = 64


def sampled_frames(scene: Scene, image_px: int) -> np.ndarray:
    """The frames the model would sample from the scene's video, uint8 [SAMPLES, image_px, image_px, 3]."""
    painter = Painter(scene, SHORT_SIDE)
    frames = [
        Image.fromarray(painter.frame(float(t))).resize((image_px, image_px), Image.Resampling.BICUBIC)
        for t in scene.sample_times()
    ]
    assert len(frames) == SAMPLES
    return np.stack([np.asarray(f) for f in frames])


def _fill(path: Path, seed: int, start: int, stop: int, image_px: int) -> int:
    pool = np.lib.format.open_memmap(path, mode="r+")
    for i in range(start, stop):
        pool[i] = sampled_frames(draw_scene(seed, i), image_px)
    pool.flush()
    return stop


def build_pool(path: Path, *, seed: int, n_videos: int, image_px: int, workers: int) -> None:
    """Draw `n_videos` scenes into one uint8 .npy [n_videos, SAMPLES, px, px, 3]; `path.done` counts finished videos."""
    from tqdm import tqdm

    shape = (n_videos, SAMPLES, image_px, image_px, 3)
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
    done = path.with_suffix(".done")
    done.write_text("0")
    with ProcessPoolExecutor(workers) as executor, tqdm(total=n_videos, unit="video", mininterval=10) as bar:
        jobs = [
            executor.submit(_fill, path, seed, a, min(a + CHUNK, n_videos), image_px) for a in range(0, n_videos, CHUNK)
        ]
        for job in jobs:
            ready = job.result()
            bar.update(ready - bar.n)
            done.write_text(str(ready))
