"""A random corpus with labels that mean nothing, and plain dense copies of what is computed from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from collect.reading import VideoRecord
from collect.tokens.grid import TokenGrid, frame_spans
from features.association.split_units import SplitUnits
from features.labels.corpus import Corpus
from features.labels.labelling import OBJECTS
from features.labels.regions import RegionLabels
from features.labels.unit_labels import Space, UnitLabels

FRAMES = Space("action", "frame")
FPS = 10.0


def grid_of(n_t: int, n_rows: int = 2, n_cols: int = 2, *, step_s: float = 1.0) -> TokenGrid:
    times = step_s * np.arange(n_t)
    return TokenGrid.uniform(
        n_rows=n_rows,
        n_cols=n_cols,
        spans_s=frame_spans(times, FPS),
        frame_ids=np.round(times * FPS).astype(np.int64),
    )


def records_of(grids: list[TokenGrid]) -> list[VideoRecord]:
    ends = np.cumsum([0, *(grid.n_tokens for grid in grids)])
    return [
        VideoRecord(
            index=index,
            video_id=f"video_{index}",
            path="",
            split="train",
            row_start=int(ends[index]),
            row_stop=int(ends[index + 1]),
            grid=grid,
            frame_rate=FPS,
            n_frames=100,
            width=8,
            height=8,
        )
        for index, grid in enumerate(grids)
    ]


def random_labels(rng: np.random.Generator, n_units: int, n_labels: int) -> UnitLabels:
    """Positive within touched; eligible or not; a unit may be positive without being eligible."""
    touched = rng.random((n_units, n_labels)) < 0.3
    positive = touched & (rng.random(touched.shape) < 0.7)
    eligible = rng.random(n_units) < 0.6
    return UnitLabels(
        names=tuple(f"label {index}" for index in range(n_labels)),
        positive=sparse.csr_array(positive),
        touched=sparse.csr_array(touched),
        hidden=sparse.csr_array(positive & (rng.random(touched.shape) < 0.2)),
        eligible=eligible,
        background=~eligible & (rng.random(n_units) < 0.5),
    )


def random_corpus(rng: np.random.Generator, n_videos: int = 6, n_labels: int = 3, *, equal: bool = True) -> Corpus:
    grids = [grid_of(3 if equal else int(rng.integers(1, 5))) for _ in range(n_videos)]
    n_tokens, n_frames = sum(grid.n_tokens for grid in grids), sum(grid.n_t for grid in grids)
    return Corpus(
        records=records_of(grids),
        annotations=[None] * n_videos,
        held_out=np.arange(n_videos) % 3 != 0,
        labels={
            OBJECTS: random_labels(rng, n_tokens, n_labels),
            FRAMES: random_labels(rng, n_frames, n_labels),
        },
    )


def random_regions(rng: np.random.Generator, records: list[VideoRecord], n_labels: int) -> RegionLabels:
    """Labels of tokens of which up to five of a video share each region, wherever they are."""
    sizes = [record.grid.n_tokens for record in records]
    region = np.concatenate([rng.integers(0, 1 + size // 5, size) for size in sizes])
    video = np.repeat(np.arange(len(records)), sizes)
    _, region = np.unique(video * len(region) + region, return_inverse=True)
    return RegionLabels(random_labels(rng, int(region.max()) + 1, n_labels), region.astype(np.int32))


def by_unit(labels: UnitLabels) -> UnitLabels:
    """The same labels, each unit with its own."""
    return UnitLabels(
        names=labels.names,
        positive=labels.positive,
        touched=labels.touched,
        hidden=labels.hidden,
        eligible=labels.eligible,
        background=labels.background,
    )


def random_codes(rng: np.random.Generator, n_tokens: int, n_latents: int = 5) -> np.ndarray:
    """Float32 [token, latent] with few distinct values, so that ties are common, and latents that never fire."""
    values = rng.choice([0.5, 1.0, 1.25, 3.0], size=(n_tokens, n_latents))
    rates = rng.choice([0.0, 0.1, 0.5, 0.9], size=n_latents)
    return (values * (rng.random(values.shape) < rates)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Everything of one space and split as dense arrays."""

    activations: np.ndarray
    """[unit, latent]"""
    video: np.ndarray
    positive: np.ndarray
    """[unit, label]"""
    negative: np.ndarray
    background: np.ndarray


def dense_of(corpus: Corpus, codes: np.ndarray, space: Space, *, held_out: bool) -> Dense:
    """Made one video after the other, from the corpus alone."""
    labels = corpus.labels[space]
    parts: list[np.ndarray] = []
    units: list[int] = []
    video: list[int] = []
    first = 0
    for index, record in enumerate(corpus.records):
        own = codes[record.row_start : record.row_stop]
        if space.level == "frame":
            own = own.reshape(record.grid.n_t, -1, own.shape[1]).max(axis=1)
        if corpus.held_out[index] == held_out:
            parts.append(own)
            units += range(first, first + len(own))
            video += [len(parts) - 1] * len(own)
        first += len(own)
    positive = labels.positive.toarray()[units]
    return Dense(
        activations=np.concatenate(parts),
        video=np.array(video, dtype=np.int64),
        positive=positive,
        negative=labels.eligible[units][:, None] & ~labels.touched.toarray()[units],
        background=labels.background[units],
    )


def units_and_entries(
    corpus: Corpus, codes: np.ndarray, space: Space, *, held_out: bool
) -> tuple[SplitUnits, sparse.csc_array]:
    units = SplitUnits(corpus, space, held_out=held_out)
    return units, units.entries(sparse.csc_array(codes))
