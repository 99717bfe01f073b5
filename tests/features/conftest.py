"""A small run with planted truth: a store of sums of known directions, an SAE that undoes them, annotated videos.

Every video has a red ball and a blue cube, each over one patch of a 4 x 4 grid for four frames a second apart, and in
half of the videos someone claps during the last two frames. Latent 0 fires on balls, 1 on cubes, 2 in three patches of
clapping frames, 3 everywhere on some frames without reason, 4 and above never.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.linalg import hadamard

from collect.artefact.config_json import write_config
from collect.data.perception_test import Segment, Track, Video
from collect.reading import ActivationStore, VideoRecord
from collect.store.manifest import write_manifest
from collect.store.writer import SiteSpec, StoreWriter
from collect.tokens.grid import TokenGrid, frame_spans
from features.codes import Codes
from tests.collect.video_files import write_video
from train_sae.lens.export import save_sae
from train_sae.sae import Sae

FPS, N_T, SIDE, D_IN, D_SAE = 10.0, 4, 4, 16, 8
BALL, CUBE, CLAP, NOISE, DEAD = range(5)
SITE = "resid/0"


@dataclass(frozen=True, kw_only=True)
class PlantedVideo:
    video: Video
    grid: TokenGrid
    activations: np.ndarray
    """[token, latent]"""


def make_grid() -> TokenGrid:
    times = np.arange(N_T, dtype=np.float64)
    return TokenGrid.uniform(
        n_rows=SIDE, n_cols=SIDE, spans_s=frame_spans(times, FPS), frame_ids=np.round(times * FPS).astype(np.int64)
    )


def make_track(id: int, label: str, patches: Sequence[int]) -> Track:
    """A track over one patch of the grid at each second."""
    cells = np.array([divmod(patch, SIDE) for patch in patches]) / SIDE
    boxes = np.stack([cells[:, 1], cells[:, 0], cells[:, 1] + 1 / SIDE, cells[:, 0] + 1 / SIDE], axis=1)
    times = np.arange(len(patches), dtype=np.float64)
    return Track(
        id=id,
        label=label,
        is_occluder=False,
        is_masked=np.zeros(len(times), dtype=bool),
        boxes=boxes,
        frame_ids=np.round(times * FPS).astype(np.int64),
        times_s=times,
    )


def plant_video(index: int, rng: np.random.Generator) -> PlantedVideo:
    grid = make_grid()
    patches = np.stack([rng.choice(SIDE * SIDE, size=2, replace=False) for _ in range(N_T)], axis=1)
    claps = bool(rng.random() < 0.5)
    activations = np.zeros((grid.n_t, SIDE * SIDE, D_SAE))
    for latent, row in ((BALL, patches[0]), (CUBE, patches[1])):
        activations[np.arange(N_T), row, latent] = 1 + rng.random(N_T)
    if claps:
        activations[2:, rng.choice(SIDE * SIDE, size=3, replace=False), CLAP] = 1 + rng.random((2, 1))
    activations[rng.random(N_T) < 0.4, :, NOISE] = 1.0
    actions = [Segment(id=1, label="waving", label_id=1, parent_objects=(), start_s=0.0, end_s=0.5)]
    if claps:
        actions.append(Segment(id=0, label="clapping", label_id=0, parent_objects=(-1,), start_s=2.0, end_s=4.0))
    video = Video(
        video_id=f"video_{index:03d}",
        path=None,
        split="train" if index % 2 else "valid",
        frame_rate=FPS,
        n_frames=int(N_T * FPS),
        height=64,
        width=64,
        is_camera_moving=index % 3 == 0,
        tracks=(make_track(10, "red ball", patches[0]), make_track(20, "Blue cubes", patches[1])),
        actions=tuple(actions),
    )
    return PlantedVideo(video=video, grid=grid, activations=activations.reshape(-1, D_SAE))


def plant_videos(n: int, seed: int = 0) -> list[PlantedVideo]:
    rng = np.random.default_rng(seed)
    return [plant_video(index, rng) for index in range(n)]


def directions(*, rotated: bool) -> torch.Tensor:
    """Orthonormal rows: the axes themselves, or none near an axis, so that no residual dimension is a latent."""
    return torch.from_numpy(hadamard(D_IN) / np.sqrt(D_IN)).float() if rotated else torch.eye(D_IN)


def planted_sae(*, fingerprint: str = "model", rotated: bool = False) -> Sae:
    """Decoder directions are the first of `directions`, each encoded without loss."""
    rows = directions(rotated=rotated)[:D_SAE]
    return Sae(
        architecture="jumprelu",
        k=1,
        W_enc=rows.T.contiguous(),
        W_dec=rows,
        b_enc=torch.zeros(D_SAE),
        b_dec=torch.zeros(D_IN),
        threshold=torch.full((D_SAE,), 0.5),
        metadata={"hook_name": SITE, "model_fingerprint": fingerprint, "k": 1},
    )


def records_of(planted: Sequence[PlantedVideo]) -> list[VideoRecord]:
    records: list[VideoRecord] = []
    row = 0
    for index, item in enumerate(planted):
        video = item.video
        records.append(
            VideoRecord(
                index=index,
                video_id=video.video_id,
                path=f"{video.video_id}.mp4",
                split=video.split,
                row_start=row,
                row_stop=row + item.grid.n_tokens,
                grid=item.grid,
                frame_rate=FPS,
                n_frames=video.n_frames,
                width=video.width,
                height=video.height,
            )
        )
        row += item.grid.n_tokens
    return records


class MemoryCodes(Codes):
    """Codes of a matrix in memory."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        self._matrix = sparse.csr_array(matrix.astype(np.float32))
        self._matrix.indptr = self._matrix.indptr.astype(np.int64)
        self.n_tokens, self.d_sae = matrix.shape

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        return self._matrix[start:stop]

    def by_latent(self, latents: np.ndarray) -> sparse.csc_array:
        some = self._matrix.tocsc()[:, latents]
        some.indices = some.indices.astype(np.int32)
        return some

    def n_active(self) -> np.ndarray:
        return np.diff(self._matrix.tocsc().indptr).astype(np.int64)


def write_store(
    folder: Path, planted: Sequence[PlantedVideo], *, seed: int = 0, rotated: bool = False, data: Path | None = None
) -> ActivationStore:
    """Store the planted activations, with small noise where no latent reads."""
    rng = np.random.default_rng(seed)
    records = records_of(planted)
    sites = {SITE: SiteSpec(d_in=D_IN, dtype=torch.float32)}
    n_tokens = records[-1].row_stop
    model = {"fingerprint": "model"}
    with StoreWriter(folder, 0, sites, n_tokens, shard_rows=256, chunk_rows=64, model=model) as writer:
        for record, item in zip(records, planted, strict=True):
            x = 0.1 * rng.standard_normal((item.grid.n_tokens, D_IN))
            x[:, :D_SAE] = item.activations
            writer.add_video(record, {SITE: torch.from_numpy(x).float() @ directions(rotated=rotated)})
        writer.finish()
    write_config(folder, "collect", {"data": data}, {})
    write_manifest(folder, [0])
    return ActivationStore.open(folder)


def annotation_of(video: Video) -> dict[str, object]:
    """The video as a record of the benchmark's JSON."""
    return {
        "metadata": {
            "split": video.split,
            "video_id": video.video_id,
            "frame_rate": video.frame_rate,
            "num_frames": video.n_frames,
            "resolution": [video.height, video.width],
            "audio_samples": 0,
            "audio_sample_rate": 0,
            "is_cup_game": 0,
            "is_camera_moving": int(video.is_camera_moving),
        },
        "object_tracking": [
            {
                "id": track.id,
                "label": track.label,
                "is_occluder": 0,
                "is_masked": 0,
                "bounding_boxes": track.boxes.tolist(),
                "initial_tracking_box": [1, *([0] * (len(track.boxes) - 1))],
                "frame_ids": track.frame_ids.tolist(),
                "timestamps": [round(1e6 * time) for time in track.times_s],
            }
            for track in video.tracks
        ],
        "action_localisation": [
            {
                "id": index,
                "label": segment.label,
                "label_id": segment.label_id,
                "parent_objects": list(segment.parent_objects),
                "timestamps": [round(1e6 * segment.start_s), round(1e6 * segment.end_s)],
                "frame_ids": [round(FPS * segment.start_s), round(FPS * segment.end_s)],
            }
            for index, segment in enumerate(video.actions)
        ],
    }


def write_data(folder: Path, planted: Sequence[PlantedVideo], *, with_videos: int) -> Path:
    """A folder of annotations with the files of the first few videos: grey, with a red ball and a blue cube."""
    content = {item.video.video_id: annotation_of(item.video) for item in planted}
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    for item in planted[:with_videos]:
        frames: list[np.ndarray] = []
        for t in np.repeat(np.arange(N_T), int(FPS)):
            frame = np.full((64, 64, 3), 128, dtype=np.uint8)
            for track, colour in zip(item.video.tracks, ((220, 30, 30), (30, 30, 220)), strict=True):
                x1, y1, x2, y2 = np.round(64 * track.boxes[t]).astype(int)
                frame[y1:y2, x1:x2] = colour
            frames.append(frame)
        write_video(folder / "videos" / f"{item.video.video_id}.mp4", frames, rate=int(FPS))
    return folder


def write_run(folder: Path, planted: Sequence[PlantedVideo], data: Path) -> Path:
    """A run with a store and an SAE, in directions that no residual dimension has."""
    write_store(folder / "activations", planted, rotated=True, data=data)
    save_sae(folder / "sae" / "planted", planted_sae(rotated=True), torch.full((D_SAE,), 0.1))
    return folder


@pytest.fixture(scope="session")
def planted() -> list[PlantedVideo]:
    return plant_videos(40)


@pytest.fixture(scope="session")
def store(planted: list[PlantedVideo], tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return write_store(tmp_path_factory.mktemp("run") / "activations", planted)
