"""Where and when latents fire: heat on a clip, histogram, place and time.

Pure functions from activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from browse.gathering.rounding import all_rounded
from collect.reading import VideoRecord

MOST_HEAT = 400
"""Patches of a clip that are drawn; the strongest ones, those of the moment first."""
HEAT_LEVELS = 255
N_BINS = 24
"""Of a histogram of activations."""
N_TIME_BINS = 16
"""Of the length of a clip."""


def heat(
    rank: Int64[np.ndarray, " token"],
    value: Float32[np.ndarray, " token"],
    n_patches: int,
    largest: float,
    steps: tuple[int, int] | None = None,
    most: int = MOST_HEAT,
) -> dict[str, list[int]]:
    """The patches of a clip at which a latent fires.

    Args:
        rank: places of these tokens in the grid's order, ascending.
        value: activations there.
        n_patches: tokens of a time step.
        largest: activation that becomes `HEAT_LEVELS`.
        steps: first and last time step of the moment, whose patches come before others where there are too many.
        most: patches to keep.

    Returns:
        `t`, `token` (patch within the time step) and `value` (1 to 255) of each, in the grid's order.
    """
    t = rank // n_patches
    if len(rank) > most:
        outside = np.zeros(len(rank), dtype=bool) if steps is None else (t < steps[0]) | (t > steps[1])
        kept = np.sort(np.lexsort((rank, -value, outside))[:most])
        rank, value, t = rank[kept], value[kept], t[kept]
    level = np.clip(np.rint(HEAT_LEVELS * value / largest), 1, HEAT_LEVELS).astype(np.int64)
    return {"t": t.tolist(), "token": (rank % n_patches).tolist(), "value": level.tolist()}


def per_frame(
    rank: Int64[np.ndarray, " token"], value: Float32[np.ndarray, " token"], n_patches: int, n_t: int
) -> list[float | None]:
    """The largest activation of each time step."""
    most = np.zeros(n_t, dtype=np.float32)
    np.maximum.at(most, rank // n_patches, value)
    return all_rounded(most, 4)


def histogram(value: Float32[np.ndarray, " token"]) -> dict[str, list[Any]]:
    """Numbers of activations in bins of equal width from 0 to the largest."""
    if not len(value):
        return {"edges": [], "counts": []}
    counts, edges = np.histogram(value, bins=N_BINS, range=(0.0, float(value.max())))
    return {"edges": all_rounded(edges, 4), "counts": counts.tolist()}


class PlaceAndTime:
    """The common places and times of videos whose grids may differ.

    Places are the rows and columns of the grid that most tokens have; a token of another grid counts at the place that
    holds the centre of its patch. Times are equal parts of each clip.

    Args:
        videos: of the store, in its order.
    """

    def __init__(self, videos: Sequence[VideoRecord]) -> None:
        sizes: dict[tuple[int, int], int] = {}
        for video in videos:
            shape = (video.grid.n_rows, video.grid.n_cols)
            sizes[shape] = sizes.get(shape, 0) + video.n_tokens
        self.shape = max(sizes, key=lambda shape: (sizes[shape], shape)) if sizes else (1, 1)
        tokens: list[tuple[Int64[np.ndarray, " token"], Int64[np.ndarray, " token"]]] = []
        known: dict[tuple[int, int, int], tuple[Int64[np.ndarray, " token"], Int64[np.ndarray, " token"]]] = {}
        for video in videos:
            grid = (video.grid.n_t, video.grid.n_rows, video.grid.n_cols)
            if grid not in known:
                known[grid] = self._bins(*grid)
            tokens.append(known[grid])
        empty = np.empty(0, dtype=np.int16)
        self._place = np.concatenate([empty, *(place.astype(np.int16) for place, _ in tokens)])
        self._time = np.concatenate([empty, *(time.astype(np.int16) for _, time in tokens)])
        self._n_place = np.bincount(self._place, minlength=self.shape[0] * self.shape[1])
        self._n_time = np.bincount(self._time, minlength=N_TIME_BINS)

    def _bins(self, n_t: int, n_rows: int, n_cols: int) -> tuple[np.ndarray, np.ndarray]:
        rows, cols = self.shape
        t, row, col = np.unravel_index(np.arange(n_t * n_rows * n_cols), (n_t, n_rows, n_cols))
        place = ((2 * row + 1) * rows // (2 * n_rows)) * cols + (2 * col + 1) * cols // (2 * n_cols)
        return place, (2 * t + 1) * N_TIME_BINS // (2 * n_t)

    def place(
        self, token: Int64[np.ndarray, " token"], value: Float32[np.ndarray, " token"]
    ) -> list[list[float | None]]:
        """Mean activation at each place, row by row, over all tokens there."""
        return [
            all_rounded(line, 4) for line in self._mean(self._place, self._n_place, token, value).reshape(self.shape)
        ]

    def time(self, token: Int64[np.ndarray, " token"], value: Float32[np.ndarray, " token"]) -> list[float | None]:
        """Mean activation in each part of the clip; null in parts in which no time step has its middle."""
        mean = self._mean(self._time, self._n_time, token, value)
        return all_rounded(np.where(self._n_time > 0, mean, np.nan), 4)

    @staticmethod
    def _mean(bins: np.ndarray, sizes: np.ndarray, token: np.ndarray, value: np.ndarray) -> Float64[np.ndarray, " bin"]:
        total = np.bincount(bins[token], weights=value.astype(np.float64), minlength=len(sizes))
        return total / np.maximum(sizes, 1)
