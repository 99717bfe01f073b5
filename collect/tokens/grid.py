"""Where each visual token of a clip lies: its frame span in seconds and its patch box in the original frame.

In every supported family the visual tokens run frame by frame, then row by row, then column by column, so that a
token's rank k has the coordinates t = k // (R C), row = k % (R C) // C and column = k % C. Patch boxes are products of
a row interval and a column interval, which is also how a grid is stored.

Boxes are nominal: attention in the vision tower is global within a frame, so a token also knows what lies outside its
    box. The family that builds the grid (`collect.vlm`) knows how its processor crops and resizes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Int64

from collect.artefact.json_fields import Fields


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenGrid:
    """Coordinates of the `n_t * n_rows * n_cols` visual tokens of one clip."""

    spans_s: Float64[np.ndarray, "n_t 2"]
    """Start of the first and end of the last frame that a token's time step covers, in seconds from the first frame."""
    frame_ids: Int64[np.ndarray, " n_t"]
    """Index in the video of the first frame of each time step."""
    row_spans: Float64[np.ndarray, "n_rows 2"]
    """Top and bottom of each row of tokens, as fractions of the original frame's height."""
    col_spans: Float64[np.ndarray, "n_cols 2"]
    """Left and right of each column of tokens, as fractions of the original frame's width."""

    @classmethod
    def uniform(
        cls,
        *,
        n_rows: int,
        n_cols: int,
        spans_s: Float64[np.ndarray, "n_t 2"],
        frame_ids: Int64[np.ndarray, " n_t"],
    ) -> "TokenGrid":
        """Grid whose tokens divide the whole frame evenly, as when a processor squashes frames to its own size."""
        return cls(spans_s=spans_s, frame_ids=frame_ids, row_spans=even_spans(n_rows), col_spans=even_spans(n_cols))

    @property
    def n_t(self) -> int:
        """Number of time steps."""
        return len(self.spans_s)

    @property
    def n_rows(self) -> int:
        """Number of rows of tokens per time step."""
        return len(self.row_spans)

    @property
    def n_cols(self) -> int:
        """Number of columns of tokens per time step."""
        return len(self.col_spans)

    @property
    def n_tokens(self) -> int:
        """Number of visual tokens of the clip."""
        return self.n_t * self.n_rows * self.n_cols

    @cached_property
    def boxes(self) -> Float64[np.ndarray, "n_rows n_cols 4"]:
        """Patch boxes (x1, y1, x2, y2), normalised in the original frame; the same at every time step."""
        boxes = np.empty((self.n_rows, self.n_cols, 4))
        boxes[:, :, 0::2] = self.col_spans[None, :, :]
        boxes[:, :, 1::2] = self.row_spans[:, None, :]
        return boxes

    def box(self, row: int, col: int) -> Float64[np.ndarray, " 4"]:
        """Patch box (x1, y1, x2, y2) of one row and column, normalised in the original frame."""
        return self.boxes[row, col]

    def coords(self) -> Int32[np.ndarray, "token 3"]:
        """Coordinates (t, row, column) of every token in the order in which the model sees them."""
        shape = (self.n_t, self.n_rows, self.n_cols)
        return np.stack(np.unravel_index(np.arange(self.n_tokens), shape), axis=1).astype(np.int32)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_fields` gives an equal grid back, to the last bit."""
        return {
            "spans_s": self.spans_s.tolist(),
            "frame_ids": self.frame_ids.tolist(),
            "row_spans": self.row_spans.tolist(),
            "col_spans": self.col_spans.tolist(),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> "TokenGrid":
        """Rebuild a grid from what `to_json` gave, as it was read from a file.

        Raises:
            UserError: a field is missing, or is not what `to_json` writes.
        """
        spans_s = fields.array("spans_s", dtype=np.float64, width=2)
        frame_ids = fields.array("frame_ids", dtype=np.int64)
        if not len(frame_ids) == len(spans_s) > 0 or (frame_ids < 0).any():
            raise fields.error("frame_ids", "frame ids from 0, one per time step")
        row_spans, col_spans = (fields.array(name, dtype=np.float64, width=2) for name in ("row_spans", "col_spans"))
        for name, spans in (("row_spans", row_spans), ("col_spans", col_spans)):
            if not len(spans):
                raise fields.error(name, "one interval or more")
        return cls(spans_s=spans_s, frame_ids=frame_ids, row_spans=row_spans, col_spans=col_spans)


def frame_grid(
    n_rows: int,
    n_cols: int,
    times_s: Float64[np.ndarray, " frame"],
    frame_ids: Int64[np.ndarray, " frame"],
    frame_rate: float,
    frames_per_step: int = 1,
) -> TokenGrid:
    """Grid over whole frames, divided evenly, with one time step for every `frames_per_step` of them."""
    return TokenGrid.uniform(
        n_rows=n_rows,
        n_cols=n_cols,
        spans_s=frame_spans(times_s, frame_rate, frames_per_step),
        frame_ids=frame_ids[::frames_per_step],
    )


def cell_spans(n: int, *, first: float, cell: float, total: float) -> Float64[np.ndarray, "n 2"]:
    """Intervals of `n` cells side by side, as fractions of `total`.

    Args:
        n: number of cells.
        first: where the first cell begins.
        cell: length of a cell, in the unit of `first` and `total`.
        total: length of the whole frame's side; cells need not cover it.
    """
    edges = (first + cell * np.arange(n + 1)) / total
    return np.stack([edges[:-1], edges[1:]], axis=1)


def even_spans(n: int) -> Float64[np.ndarray, "n 2"]:
    """Split [0, 1] into `n` intervals of equal length, without gaps."""
    edges = np.arange(n + 1) / n
    return np.stack([edges[:-1], edges[1:]], axis=1)


def frame_spans(
    times_s: Float64[np.ndarray, " frame"], frame_rate: float, frames_per_step: int = 1
) -> Float64[np.ndarray, "n_t 2"]:
    """Span of each time step: from its first frame's time to its last frame's time plus one frame period.

    Args:
        times_s: presentation times of the frames that the model was given.
        frame_rate: of the video, in frames per second.
        frames_per_step: frames that one time step merges; a last, incomplete step ends with the last frame.
    """
    starts = times_s[::frames_per_step]
    lasts = np.append(times_s[frames_per_step - 1 :: frames_per_step], times_s[-1])[: len(starts)]
    return np.stack([starts, lasts + 1.0 / frame_rate], axis=1)
