"""Labels of places and times, which follow from the cell (time step, row, column) of a token.

Every token has several of them, so that they are kept by cell, and laid over tokens only where somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import sparse

from features.labels.regions import RegionLabels
from features.labels.unit_labels import UnitLabels


class PlaceLabels(RegionLabels):
    """Labels of consecutive tokens, each of which is positive for the labels of its cell and negative for all others.

    Args:
        names: of the labels.
        in_cells: which labels each cell has.
        cell: of each token.
    """

    def __init__(
        self, names: tuple[str, ...], in_cells: Bool[np.ndarray, "cell label"], cell: Int32[np.ndarray, " token"]
    ) -> None:
        has = sparse.csr_array(in_cells)
        everywhere = np.ones(len(in_cells), dtype=bool)
        of_cells = UnitLabels(
            names=names,
            positive=has,
            touched=has,  # no token is touched without being positive
            hidden=sparse.csr_array(in_cells.shape, dtype=bool),
            eligible=everywhere,
            background=~everywhere,
        )
        super().__init__(of_cells, cell)

    def select(self, units: Int64[np.ndarray, " unit"], labels: Sequence[int] | None = None) -> PlaceLabels:
        """Labels of some tokens (in that order), and of all or some names."""
        columns = list(range(len(self.names))) if labels is None else list(labels)
        in_cells = self.of_regions.positive.toarray()[:, columns]
        return PlaceLabels(tuple(self.names[column] for column in columns), in_cells, self.region[units])
