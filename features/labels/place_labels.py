"""Labels of places and times, which follow from the cell (time step, row, column) of a token.

Every token has several of them, so that they are kept by cell, and laid over tokens only where somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import sparse

from features.labels.unit_labels import UnitLabels


class PlaceLabels(UnitLabels):
    """Labels of consecutive tokens, each of which is positive for the labels of its cell and negative for all others.

    Args:
        names: of the labels.
        in_cells: which labels each cell has.
        cell: of each token.
    """

    in_cells: Bool[np.ndarray, "cell label"]
    cell: Int32[np.ndarray, " token"]

    def __init__(
        self, names: tuple[str, ...], in_cells: Bool[np.ndarray, "cell label"], cell: Int32[np.ndarray, " token"]
    ) -> None:
        values = {
            "names": names,
            "in_cells": in_cells,
            "cell": cell,
            # All tokens are alike, and share one number.
            "eligible": np.broadcast_to(True, len(cell)),
            "background": np.broadcast_to(False, len(cell)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def row(self) -> Int32[np.ndarray, " token"]:
        """Cell of each token."""
        return self.cell

    @property
    def by_row(self) -> PlaceLabels:
        """Labels of the cells."""
        return PlaceLabels(self.names, self.in_cells, np.arange(len(self.in_cells), dtype=np.int32))

    @property
    def positive(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bool [token, label], made anew each time."""
        return sparse.csr_array(sparse.csr_array(self.in_cells)[self.cell])

    @property
    def touched(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The same: no token is touched without being positive."""
        return self.positive

    @property
    def hidden(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nothing."""
        return sparse.csr_array((len(self.cell), len(self.names)), dtype=bool)

    def masks(self, label: int) -> tuple[Bool[np.ndarray, " unit"], Bool[np.ndarray, " unit"]]:
        """Positive and negative tokens of a label."""
        positive = self.in_cells[self.cell, label]
        return positive, ~positive

    def select(self, units: Int64[np.ndarray, " unit"], labels: Sequence[int] | None = None) -> PlaceLabels:
        """Labels of some tokens (in that order), and of all or some names."""
        columns = list(range(len(self.names))) if labels is None else list(labels)
        names = tuple(self.names[column] for column in columns)
        return PlaceLabels(names, self.in_cells[:, columns], self.cell[units])
