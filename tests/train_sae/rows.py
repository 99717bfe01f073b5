"""Stand-ins for what the loader reads from, and for the loader."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from train_sae.batches.loader import TokenLoader
from train_sae.batches.shard_reader import ShardReader


class RowNumbers:
    """A store of which each row holds its own number, and which remembers what was read."""

    d_in = 2

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.reads: list[np.ndarray] = []

    def read(self, rows: np.ndarray, places: np.ndarray, out: Tensor) -> None:
        assert np.all(np.diff(rows) > 0)
        self.reads.append(rows)
        out[torch.from_numpy(places)] = torch.from_numpy(rows).to(self.dtype)[:, None]


class BothLanes(TokenLoader):
    """One process that trains on both lanes of two: its batches are those of two processes together."""

    def __init__(self, *arguments: Any, **changes: Any) -> None:
        both = {"n_lanes": 2, "lanes": (0, 1)} if "n_lanes" in changes else {}
        super().__init__(*arguments, **{**changes, **both})


def broken_at(row: int) -> type[ShardReader]:
    """A reader that gives infinity for one row of the store."""

    class Broken(ShardReader):
        def read(self, rows: np.ndarray, places: np.ndarray, out: Tensor) -> None:
            super().read(rows, places, out)
            out[torch.from_numpy(places[rows == row])] = torch.inf

    return Broken
