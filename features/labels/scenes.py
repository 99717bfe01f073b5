"""What a whole frame, a whole video, or a token's place and time say: rivals that every other label has to beat.

A latent may follow "any frame of a cup game" rather than "swapping", or the last row of patches rather than the cups
that stand there. Such explanations are labels like any other, and a latent that they explain best is named by them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from collect.data.perception_test import Video
from collect.reading import VideoRecord
from collect.tokens.grid import TokenGrid
from features.labels.names import head_noun, normalise_name
from features.labels.things import LaidTracks
from features.labels.unit_labels import Carrier

CUP_GAME, CAMERA_MOVING = "cup game", "camera moving"
CROWDS = (2, 3, 4, 5, 6, 8, 10, 15)
"""Numbers of objects in view from which on a frame counts as one with that many."""
MAX_STEPS = 64
"""Time steps that are labels of their own; those of longer clips are counted in as many equal parts."""


def scene_names(video: Video) -> frozenset[str]:
    """All names of a video's scenes; which of its frames have them is decided later."""
    videos = {name for name, holds in _whole_video(video).items() if holds}
    heads = {f"{head_noun(track.label)} in view" for track in video.tracks}
    return frozenset({*videos, *heads, *(_crowd(n) for n in CROWDS if n <= len(video.tracks))})


def scene_carriers(video: Video, laid: LaidTracks) -> list[Carrier]:
    """The kind of scene, who is in view, and how many objects are."""
    in_view = ~np.isnan(laid.boxes[:, :, 0]) & ~laid.hidden
    n_t = in_view.shape[1]
    carriers = [
        Carrier(names=(name,), degree=np.full(n_t, float(holds))) for name, holds in _whole_video(video).items()
    ]
    carriers += [
        Carrier(names=(f"{head_noun(track.label)} in view",), degree=frames.astype(np.float64))
        for track, frames in zip(laid.tracks, in_view, strict=True)
    ]
    n_in_view = in_view.sum(axis=0)
    return carriers + [Carrier(names=(_crowd(n),), degree=(n_in_view >= n).astype(np.float64)) for n in CROWDS]


def _whole_video(video: Video) -> dict[str, bool]:
    segments = {normalise_name(segment.label) for segment in (*video.actions, *video.sounds)}
    return {
        CUP_GAME: video.is_cup_game,
        CAMERA_MOVING: video.is_camera_moving,
        **{f"video with {name}": True for name in segments},
    }


def _crowd(n: int) -> str:
    return f"{n} or more objects in view"


class PlaceGrid:
    """Names of places and times, in the numbers of time steps, rows and columns that most videos have.

    In a video with another grid, rows, columns and steps are those of the common grid that their middles fall into.
    """

    def __init__(self, records: Sequence[VideoRecord]) -> None:
        shapes = [(record.grid.n_t, record.grid.n_rows, record.grid.n_cols) for record in records]
        self.n_t, self.n_rows, self.n_cols = max(sorted(set(shapes)), key=shapes.count) if shapes else (1, 1, 1)
        self.n_t = min(self.n_t, MAX_STEPS)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time steps, rows and columns of the common grid."""
        return self.n_t, self.n_rows, self.n_cols

    @property
    def n_cells(self) -> int:
        """Places and times that are told apart."""
        return self.n_t * self.n_rows * self.n_cols

    def cells(self, grid: TokenGrid) -> np.ndarray:
        """Cell (step, row, column), as one number, of each token of a grid."""
        t, row, col = (
            ((np.arange(own) + 0.5) * common / own).astype(np.int64)
            for own, common in zip((grid.n_t, grid.n_rows, grid.n_cols), self.shape, strict=True)
        )
        return ((t[:, None, None] * self.n_rows + row[:, None]) * self.n_cols + col).reshape(-1)

    def labels(self) -> tuple[dict[str, Bool[np.ndarray, " cell"]], dict[str, Bool[np.ndarray, " cell"]]]:
        """Cells of each name of a place, and of each name of a time."""
        t, row, col = np.unravel_index(np.arange(self.n_cells), self.shape)
        vertical, horizontal = (row == 0) | (row == self.n_rows - 1), (col == 0) | (col == self.n_cols - 1)
        places = {f"row {k + 1} of {self.n_rows}": row == k for k in range(self.n_rows)}
        places |= {f"column {k + 1} of {self.n_cols}": col == k for k in range(self.n_cols)}
        places |= {
            "border of the frame": vertical | horizontal,
            "corner of the frame": vertical & horizontal,
            "upper half of the frame": 2 * row < self.n_rows,
            "lower half of the frame": 2 * row >= self.n_rows,
            "left half of the frame": 2 * col < self.n_cols,
            "right half of the frame": 2 * col >= self.n_cols,
        }
        times = {f"time step {k + 1} of {self.n_t}": t == k for k in range(self.n_t)}
        half = self.n_t // 2
        if half > 1:
            times |= {f"time steps 1 to {half}": t < half, f"time steps {half + 1} to {self.n_t}": t >= half}
        return places, times
