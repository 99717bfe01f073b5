"""Regions: tokens of one video that have the same labels in every space of annotated tokens.

A frame has few of them: what is on nothing, and the inside, the edge and the centre of each box. Labels are kept by
region, which takes a tenth of what they would take by token, and laid over tokens only where somebody asks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int32, Int64
from scipy import sparse

from features.labels.unit_labels import Space, UnitLabels, VideoLabels


class RegionLabels(UnitLabels):
    """Labels of consecutive tokens, each of which has those of its region.

    Args:
        of_regions: labels whose units are the regions.
        region: of each token.
    """

    of_regions: UnitLabels
    region: Int32[np.ndarray, " token"]

    def __init__(self, of_regions: UnitLabels, region: Int32[np.ndarray, " token"]) -> None:
        for name, value in {"names": of_regions.names, "of_regions": of_regions, "region": region}.items():
            object.__setattr__(self, name, value)

    @property
    def row(self) -> Int32[np.ndarray, " token"]:
        """Region of each token."""
        return self.region

    @property
    def by_row(self) -> UnitLabels:
        """Labels of the regions."""
        return self.of_regions

    @property
    def positive(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bool [token, label], made anew each time, as the others are."""
        return sparse.csr_array(self.of_regions.positive[self.region])

    @property
    def touched(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bool [token, label]."""
        return sparse.csr_array(self.of_regions.touched[self.region])

    @property
    def hidden(self) -> sparse.csr_array:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Bool [token, label]."""
        return sparse.csr_array(self.of_regions.hidden[self.region])

    @property
    def eligible(self) -> Bool[np.ndarray, " token"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tokens that may be negatives."""
        return self.of_regions.eligible[self.region]

    @property
    def background(self) -> Bool[np.ndarray, " token"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tokens that are reported separately."""
        return self.of_regions.background[self.region]

    def masks(self, label: int) -> tuple[Bool[np.ndarray, " unit"], Bool[np.ndarray, " unit"]]:
        """Positive and negative tokens of a label."""
        positive, negative = self.of_regions.masks(label)
        return positive[self.region], negative[self.region]

    def select(self, units: Int64[np.ndarray, " unit"], labels: Sequence[int] | None = None) -> RegionLabels:
        """Labels of some tokens (in that order), and of all or some names."""
        regions = np.arange(len(self.of_regions.eligible))
        return RegionLabels(self.of_regions.select(regions, labels), self.region[units])


def join_regions(
    labels: Mapping[Space, VideoLabels],
) -> tuple[Int32[np.ndarray, " token"], dict[Space, VideoLabels]]:
    """Find the regions of a video.

    Args:
        labels: of its tokens, in one or several spaces.

    Returns:
        The region of each token, numbered by their first tokens, and the labels of the regions, which are the units.
    """
    n_tokens = next(iter(labels.values())).n_units
    masks = [np.stack([mask for own in labels.values() for mask in (own.eligible, own.background)], axis=1)]
    for own in labels.values():
        for entries in (own.positive, own.touched, own.hidden):
            names, column = np.unique(entries[:, 1], return_inverse=True)
            mask = np.zeros((n_tokens, len(names)), dtype=bool)
            mask[entries[:, 0], column] = True
            masks.append(mask)
    bits = np.packbits(np.concatenate(masks, axis=1), axis=1)
    _, first, found = np.unique(bits.view(f"V{bits.shape[1]}")[:, 0], return_index=True, return_inverse=True)
    order = np.argsort(first)
    number = np.empty(len(first), dtype=np.int32)
    number[order] = np.arange(len(first), dtype=np.int32)
    tokens = first[order]
    region_of = np.full(n_tokens, -1, dtype=np.int64)
    region_of[tokens] = np.arange(len(tokens))

    def of_regions(entries: Int64[np.ndarray, "_ 2"]) -> Int64[np.ndarray, "_ 2"]:
        region = region_of[entries[:, 0]]
        return np.stack([region, entries[:, 1]], axis=1)[region >= 0]

    by_region = {
        space: replace(
            own,
            n_units=len(tokens),
            positive=of_regions(own.positive),
            touched=of_regions(own.touched),
            hidden=of_regions(own.hidden),
            eligible=own.eligible[tokens],
            background=own.background[tokens],
        )
        for space, own in labels.items()
    }
    return number[found], by_region
