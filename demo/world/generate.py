"""Writes the demo world as a Perception Test folder: real H.264 MP4 files, official-schema JSON, cut frames.

    DATA/videos/video_N.mp4                 30 fps, with an AAC track where the scene sounds
    DATA/annotations/all_train.json         and all_valid.json
    DATA/cut_frame_mapping_train.json       and _valid.json: for videos whose end gives the answer away
    DATA/truth/video_N.json                 what the world knows, for tests only

    DATA/summary.json                       written last; the sizes and hashes of all of these

A folder that is finished is left alone; one that was interrupted is completed to the identical result, and so is one in
which a file is missing or has changed. A video counts as made if its hash is the one in its file in `truth`.
"""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from tqdm import tqdm

from collect.artefact.folder import file_hash, write_atomic
from collect.artefact.json_file import read_json
from collect.artefact.lock import writing
from collect.artefact.stage import begin_or_resume, write_summary
from collect.errors import UserError
from collect.process.machine import default_workers
from demo.world.annotate import AUDIO_RATE, annotation, has_audio, sounds, truth
from demo.world.draw import Painter
from demo.world.questions import Item, items
from demo.world.scene import FPS, Scene
from demo.world.script import draw_scene

SPLITS = ("train", "valid")
_WORKER_BYTES = 512 * 1024**2
# x264's macroblock tree gives different bits from run to run on processors with AVX-512.
X264 = {"crf": "20", "preset": "veryfast", "threads": "1", "mbtree": "0"}


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Which videos to make: numbers `first` to `first + n_videos` of the world with this seed."""

    seed: int = 0
    n_videos: int = 120
    first: int = 0
    held_out_share: float = 1 / 3
    """Share of the videos in the split "valid"; the others are "train"."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: fewer than two videos, or a share outside 0..1.
        """
        if self.n_videos < 2:
            raise UserError(f"The demo world needs at least 2 videos, not {self.n_videos}: one to learn, one to test.")
        if not 0 <= self.held_out_share <= 1:
            raise UserError(f"The held-out share must lie between 0 and 1, not {self.held_out_share}.")

    def split(self, index: int) -> str:
        """The split of one video; both kinds of scene occur in both splits."""
        before, after = (int((index - self.first + k) * self.held_out_share + 1e-9) for k in (0, 1))
        return "valid" if after > before else "train"


def balanced_positions(scenes: list[Scene], seed: int) -> list[list[tuple[Item, int, bool]]]:
    """Every scene's questions with the right option's position, each position equally often within a kind."""
    rng = np.random.default_rng([seed, 11])
    decks: dict[str, list[int]] = defaultdict(list)
    out: list[list[tuple[Item, int, bool]]] = []
    for scene in scenes:
        row: list[tuple[Item, int, bool]] = []
        for item in items(scene):
            if not decks[item.kind]:
                decks[item.kind] = rng.permutation(3).tolist()
            row.append((item, decks[item.kind].pop(), bool(rng.integers(2))))
        out.append(row)
    return out


def waveform(scene: Scene) -> np.ndarray:
    """Mono float32 samples in [-1, 1]: a click when the lamp turns on, knocks while the hand taps."""
    out = np.zeros(round(scene.n_frames / FPS * AUDIO_RATE), dtype=np.float32)
    for label, start, end, _ in sounds(scene):
        begins = np.arange(start, end, 0.25) if label.endswith("Tapping") else [start]
        pitch = 220.0 if label.endswith("Tapping") else 1800.0
        for begin in begins:
            t = np.arange(int(0.12 * AUDIO_RATE)) / AUDIO_RATE
            at = int(begin * AUDIO_RATE)
            piece = (0.5 * np.sin(2 * np.pi * pitch * t) * np.exp(-40 * t)).astype(np.float32)[: max(len(out) - at, 0)]
            out[at : at + len(piece)] += piece
    return np.clip(out, -1, 1)


def encode(scene: Scene) -> bytes:
    """The scene's video as an MP4 file, H.264 yuv420p, with AAC audio where it sounds."""
    painter = Painter(scene)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=FPS, options=X264)
        video.width, video.height, video.pix_fmt = scene.width, scene.height, "yuv420p"
        audio = container.add_stream("aac", rate=AUDIO_RATE, layout="mono") if has_audio(scene) else None
        for f in range(scene.n_frames):
            frame = av.VideoFrame.from_ndarray(painter.frame(f / FPS), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            sound = av.AudioFrame.from_ndarray(waveform(scene)[None], format="fltp", layout="mono")
            sound.sample_rate = AUDIO_RATE
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return buffer.getvalue()


def _make(folder: Path, seed: int, index: int) -> None:
    scene = draw_scene(seed, index)
    video = encode(scene)
    write_atomic(folder / "videos" / f"{scene.video_id}.mp4", video)
    known = {**truth(scene), "sha256": hashlib.sha256(video).hexdigest()}
    write_atomic(folder / "truth" / f"{scene.video_id}.json", json.dumps(known))


def _is_made(folder: Path, scene: Scene) -> bool:
    """Whether a video is as it was when its truth was written, which happens after the video."""
    video, known = folder / "videos" / f"{scene.video_id}.mp4", folder / "truth" / f"{scene.video_id}.json"
    try:
        return read_json(known, "it is made again")["sha256"] == file_hash(video)
    except (UserError, KeyError, TypeError):
        return False


def generate(folder: Path, config: WorldConfig, workers: int | None = 1) -> Path:
    """Write the world into `folder` and return the folder.

    Args:
        folder: the data folder.
        config: which videos.
        workers: processes that make them; None takes what the machine has.

    Raises:
        UserError: the folder holds a world of another config, or another process is writing it.
    """
    with writing(folder):
        if not begin_or_resume(folder, "world", config, {}):
            scenes = [draw_scene(config.seed, config.first + i) for i in range(config.n_videos)]
            _make_all(folder, config, scenes, workers)
            _write_annotations(folder, config, scenes)
            write_summary(folder, {"n_videos": len(scenes)}, _files(scenes))
    return folder


def _files(scenes: list[Scene]) -> list[str]:
    of_scenes = [name for s in scenes for name in (f"videos/{s.video_id}.mp4", f"truth/{s.video_id}.json")]
    of_splits = [f"{name}_{split}.json" for name in ("annotations/all", "cut_frame_mapping") for split in SPLITS]
    return [*of_scenes, *of_splits]


def _make_all(folder: Path, config: WorldConfig, scenes: list[Scene], workers: int | None) -> None:
    """Make the videos that are not made yet."""
    missing = [scene.index for scene in scenes if not _is_made(folder, scene)]
    workers = workers or default_workers(_WORKER_BYTES, len(missing))
    with tqdm(total=len(scenes), initial=len(scenes) - len(missing), unit="video", desc="generate") as bar:
        if workers == 1:
            for index in missing:
                _make(folder, config.seed, index)
                bar.update()
            return
        # Processes are spawned, because a fork of a process that holds torch's threads can hang.
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)
        try:
            for job in [executor.submit(_make, folder, config.seed, index) for index in missing]:
                job.result()
                bar.update()
        finally:
            executor.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Let the process that started this one end it, and end with it if it is killed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_annotations(folder: Path, config: WorldConfig, scenes: list[Scene]) -> None:
    asked = balanced_positions(scenes, config.seed)
    records: dict[str, dict[str, Any]] = {"train": {}, "valid": {}}
    cuts: dict[str, dict[str, int]] = {"train": {}, "valid": {}}
    for scene, questions in zip(scenes, asked, strict=True):
        split = config.split(scene.index)
        records[split][scene.video_id] = annotation(scene, split, questions)
        cuts[split][scene.video_id] = scene.n_clip if scene.n_clip < scene.n_frames else -1
    for split in SPLITS:
        write_atomic(folder / f"cut_frame_mapping_{split}.json", json.dumps(cuts[split]))
        write_atomic(folder / "annotations" / f"all_{split}.json", json.dumps(records[split]))
