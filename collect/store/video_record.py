"""What a store's logs say about each video: where its rows lie and what its tokens cover, or why it has none."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64

from collect.artefact.json_fields import Fields
from collect.tokens.grid import TokenGrid

MOST_VIDEOS = 2**31
"""Indices of videos are stored in int32 columns."""
_FIELDS = ("index", "video_id", "path", "split", "row_start", "row_stop", "frame_rate", "n_frames", "width", "height")


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoRecord:
    """One collected video: its rows in the store, and what its tokens cover."""

    index: int
    """Position in the store's `videos`, and first column of `coords`."""
    video_id: str
    path: str
    split: str
    row_start: int
    row_stop: int
    grid: TokenGrid
    frame_rate: float
    n_frames: int
    """Frames of the video that decode and lie before the cut."""
    width: int
    height: int
    ranks: Int64[np.ndarray, " token"] | None = None
    """Which tokens of the grid are stored, by rank in its order; None means all."""

    @property
    def n_tokens(self) -> int:
        """Number of stored tokens."""
        return self.grid.n_tokens if self.ranks is None else len(self.ranks)

    def coords(self) -> Int32[np.ndarray, "token 3"]:
        """Coordinates (t, row, column) of the stored tokens."""
        coords = self.grid.coords()
        return coords if self.ranks is None else coords[self.ranks]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in the commit log."""
        content = {**{name: getattr(self, name) for name in _FIELDS}, "grid": self.grid.to_json()}
        return content if self.ranks is None else {**content, "ranks": self.ranks.tolist()}

    @classmethod
    def from_fields(cls, fields: Fields) -> "VideoRecord":
        """Rebuild from what `to_json` gave, as it was read from a file.

        Raises:
            UserError: a field is missing, or is not what `to_json` writes.
        """
        grid = TokenGrid.from_fields(fields.child("grid"))
        ranks = fields.array("ranks", dtype=np.int64) if fields.has("ranks") else None
        if ranks is not None and not _rise_within(ranks, grid.n_tokens):
            raise fields.error("ranks", f"ranks of the {grid.n_tokens} tokens of the grid, ascending")
        record = cls(
            index=fields.count("index", most=MOST_VIDEOS - 1),
            video_id=fields.text("video_id"),
            path=fields.text("path"),
            split=fields.text("split"),
            row_start=fields.count("row_start"),
            row_stop=fields.count("row_stop"),
            n_frames=fields.count("n_frames"),
            width=fields.count("width"),
            height=fields.count("height"),
            frame_rate=fields.positive("frame_rate"),
            grid=grid,
            ranks=ranks,
        )
        if record.row_stop - record.row_start != record.n_tokens:
            raise fields.error("row_stop", f"`row_start` and the {record.n_tokens} tokens of the video together")
        return record


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that could not be collected."""

    index: int
    """Position among the videos that were to be collected."""
    video_id: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in the commit log and the manifest."""
        return asdict(self)

    @classmethod
    def from_fields(cls, fields: Fields) -> "Failure":
        """Rebuild from what `to_json` gave, as it was read from a file.

        Raises:
            UserError: a field is missing or of another kind.
        """
        return cls(
            index=fields.count("index", most=MOST_VIDEOS - 1),
            video_id=fields.text("video_id"),
            reason=fields.text("reason"),
        )


def flat(fields: Fields, name: str) -> Mapping[str, Any]:
    """A field that holds an object of plain values.

    Raises:
        UserError: it holds something else.
    """
    found = fields.mapping(name)
    if not all(value is None or isinstance(value, str | int | float) for value in found.values()):
        raise fields.error(name, "an object of texts and numbers")
    return found


def _rise_within(ranks: Int64[np.ndarray, " token"], n_tokens: int) -> bool:
    return bool(len(ranks) and ranks[0] >= 0 and ranks[-1] < n_tokens and (np.diff(ranks) > 0).all())
