"""The visual tokens of a clip that are stored: all, those of every n-th time step, or those on annotated tracks.

With `every:N` the stored grid has fewer time steps and is otherwise complete. With `tracks` single tokens are picked:
those where the box of some track covers at least half of the patch at a moment of the token's frame span.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64

from collect.tokens.choice import TokenChoice
from collect.tokens.grid import TokenGrid

MIN_COVERED = 0.5
MAX_GAP_S = 1.1
"""Longest time between two annotated boxes over which a track is followed; boxes come about once per second."""
EXACT_S = 1e-6


@runtime_checkable
class Boxes(Protocol):
    """The part of a track that the choice reads."""

    @property
    def boxes(self) -> Float64[np.ndarray, "n 4"]:
        """(x1, y1, x2, y2), as fractions of the frame."""
        ...

    @property
    def times_s(self) -> Float64[np.ndarray, " n"]:
        """When each was annotated."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """The stored tokens of one clip."""

    grid: TokenGrid
    """What the coordinates of the stored tokens refer to."""
    ranks: Int64[np.ndarray, " token"]
    """Their ranks among the tokens that the model sees."""
    is_whole: bool
    """Whether they are all tokens of `grid`."""


def choose_tokens(choice: TokenChoice, grid: TokenGrid, tracks: Sequence[Boxes]) -> Chosen:
    """Choose tokens of one clip, whose video has these tracks."""
    if choice.on_tracks:
        return Chosen(grid=grid, ranks=np.flatnonzero(on_tracks(grid, tracks)), is_whole=False)
    ranks = np.arange(grid.n_tokens).reshape(grid.n_t, -1)[:: choice.every].reshape(-1)
    thinned = replace(grid, spans_s=grid.spans_s[:: choice.every], frame_ids=grid.frame_ids[:: choice.every])
    return Chosen(grid=thinned, ranks=ranks, is_whole=True)


def on_tracks(grid: TokenGrid, tracks: Sequence[Boxes]) -> Bool[np.ndarray, " token"]:
    """Tokens half covered by a box at the start, at the end, or at an annotated moment of their frame span.

    Between two annotations at most `MAX_GAP_S` apart, boxes move in a straight line; elsewhere there are no boxes.
    """
    chosen = np.zeros((grid.n_t, grid.n_rows, grid.n_cols), dtype=bool)
    for track in tracks:
        for t, (start, stop) in enumerate(grid.spans_s):
            within = track.times_s[(track.times_s > start) & (track.times_s < stop)]
            for moment in (start, *within, stop):
                box = _box_at(track, float(moment))
                if box is not None:
                    chosen[t] |= covered_share(grid.boxes, box) >= MIN_COVERED
    return chosen.reshape(-1)


def _box_at(track: Boxes, moment_s: float) -> Float64[np.ndarray, " 4"] | None:
    """A track's box at a moment; None if it is not annotated."""
    times_s = track.times_s
    after = int(np.searchsorted(times_s, moment_s))
    if after < len(times_s) and times_s[after] - moment_s <= EXACT_S:
        return track.boxes[after]
    if not 0 < after < len(times_s) or times_s[after] - times_s[after - 1] > MAX_GAP_S:
        return None
    share = (moment_s - times_s[after - 1]) / (times_s[after] - times_s[after - 1])
    return (1 - share) * track.boxes[after - 1] + share * track.boxes[after]


def covered_share(
    patches: Float64[np.ndarray, "n_rows n_cols 4"], box: Float64[np.ndarray, " 4"]
) -> Float64[np.ndarray, "n_rows n_cols"]:
    """Share of each patch that a box covers."""
    low = np.maximum(patches[..., :2], box[:2])
    high = np.minimum(patches[..., 2:], box[2:])
    area = np.prod(patches[..., 2:] - patches[..., :2], axis=-1)
    return np.prod(np.clip(high - low, 0.0, None), axis=-1) / area
