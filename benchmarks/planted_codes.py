"""Codes and annotations as large as one likes, for measuring how the features stage grows.

Videos have the benchmark's shape: 27 % train, `n_t` frames of 12 × 12 tokens over 20 to 35 s, six tracked objects, five
actions and four sounds, whose names make about 200 labels. Of 64 active latents a token, a third belong to what is
there, if a latent does: half of all latents are planted on one label of an object each.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import sparse

from collect.data.perception_test import Segment, Track, Video
from collect.reading import VideoRecord
from collect.tokens.grid import TokenGrid, frame_spans
from features.association.controls import Controls
from features.codes import Codes
from features.codes_writer import CodesWriter
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS

SIDE, FPS, D_SAE, L0 = 12, 30.0, 32_768, 64
TRAIN, HELD_OUT = 2184, 5900
COLOURS = ("red", "blue", "green", "yellow", "white", "black")
NOUNS = ("cup", "ball", "box", "pen", "book", "plate", "spoon", "toy", "bottle", "shoe")
N_ACTIONS, N_SOUNDS, N_CONTROLS = 30, 30, 512


def make_corpus(share: float, n_t: int, *, seed: int = 0) -> Corpus:
    """A share of the benchmark's videos with the labels that their annotations give."""
    rng = np.random.default_rng([seed, 0])
    records: list[VideoRecord] = []
    videos: dict[str, Video] = {}
    row = 0
    for index, split in enumerate(["train"] * round(share * TRAIN) + ["valid"] * round(share * HELD_OUT)):
        name, duration_s = f"video_{index}", float(rng.uniform(20, 35))
        times = np.round(np.arange(n_t) * duration_s / n_t * FPS) / FPS
        grid = TokenGrid.uniform(
            n_rows=SIDE, n_cols=SIDE, spans_s=frame_spans(times, FPS), frame_ids=np.round(times * FPS).astype(np.int64)
        )
        n_frames = int(duration_s * FPS)
        records.append(
            VideoRecord(
                index=index,
                video_id=name,
                path=f"{name}.mp4",
                split=split,
                row_start=row,
                row_stop=row + grid.n_tokens,
                grid=grid,
                frame_rate=FPS,
                n_frames=n_frames,
                width=64,
                height=64,
            )
        )
        row += grid.n_tokens
        videos[name] = Video(
            video_id=name,
            path=None,
            split=split,
            frame_rate=FPS,
            n_frames=n_frames,
            height=64,
            width=64,
            is_camera_moving=bool(rng.random() < 0.2),
            is_cup_game=bool(rng.random() < 0.1),
            tracks=tuple(_track(id, duration_s, rng) for id in range(6)),
            actions=tuple(_segments("action", N_ACTIONS, 5, duration_s, rng)),
            sounds=tuple(_segments("sound", N_SOUNDS, 4, duration_s, rng)),
        )
    return build_corpus(records, videos, min_videos=1)


def _track(id: int, duration_s: float, rng: np.random.Generator) -> Track:
    """A box of a twentieth of the frame that wanders."""
    times = np.arange(0, duration_s)
    centres = np.clip(rng.random(2) + np.cumsum(rng.normal(0, 0.02, (len(times), 2)), axis=0), 0, 1)
    return Track(
        id=id,
        label=f"{rng.choice(COLOURS)} {rng.choice(NOUNS)}",
        is_occluder=False,
        is_masked=np.zeros(len(times), dtype=bool),
        boxes=np.clip(np.concatenate([centres - 0.11, centres + 0.11], axis=1), 0, 1),
        frame_ids=np.round(times * FPS).astype(np.int64),
        times_s=times.astype(np.float64),
    )


def _segments(kind: str, n_names: int, n: int, duration_s: float, rng: np.random.Generator) -> Iterator[Segment]:
    for id, name in enumerate(rng.choice(n_names, n, replace=False)):
        start_s = float(rng.uniform(0, duration_s - 4))
        parents = (int(rng.integers(6)),)
        end_s = start_s + float(rng.uniform(1, 4))
        yield Segment(id=id, label=f"{kind}-{name}", label_id=id, parent_objects=parents, start_s=start_s, end_s=end_s)


def write_codes(folder: Path, corpus: Corpus, *, d_sae: int = D_SAE, seed: int = 0) -> Codes:
    """Write `codes.zarr` for all videos of a corpus."""
    rng = np.random.default_rng([seed, 1])
    positive = corpus.labels[OBJECTS].positive
    n_labels = positive.shape[1]
    n_tokens = corpus.records[-1].row_stop
    writer = CodesWriter(folder, n_tokens, {"d_sae": d_sae, "site": "resid/0"})
    for start, stop in writer.left([*range(0, n_tokens, 1 << 14), n_tokens]):
        n = stop - start
        # Background latents fire at rates that differ by a factor of hundreds.
        latents = (d_sae * rng.random((n, L0)) ** 2).astype(np.int32)
        rows = positive[start:stop]
        of = np.repeat(np.arange(n), np.diff(rows.indptr))
        kept = np.flatnonzero(np.append(of[1:] != of[:-1], True)) if len(of) else np.empty(0, dtype=np.int64)
        mine = rng.integers(0, d_sae // 2 // n_labels, (len(kept), L0 // 3)) * n_labels + rows.indices[kept][:, None]
        latents[of[kept], : L0 // 3] = d_sae - 1 - mine
        latents.sort(axis=1)
        is_new = np.ones(latents.shape, dtype=bool)
        is_new[:, 1:] = latents[:, 1:] != latents[:, :-1]
        values = (rng.random(int(is_new.sum()), dtype=np.float32) + 1e-3).astype(np.float32)
        writer.append(np.concatenate([[0], np.cumsum(is_new.sum(axis=1))]).astype(np.int64), latents[is_new], values)
    writer.finish()
    return Codes.open(folder)


def make_controls(n_tokens: int, *, seed: int = 0) -> Controls:
    """Controls that fire at random, as often as latents do."""
    rng = np.random.default_rng([seed, 2])
    density = L0 / D_SAE
    codes = sparse.random_array((n_tokens, N_CONTROLS), density=density, rng=rng, dtype=np.float32, format="csr")
    return Controls(codes=codes, bin=np.zeros(N_CONTROLS, dtype=np.int64), rates=np.array([density]))
