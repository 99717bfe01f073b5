"""The units of one space and split that some label concerns, with their codes and labels as dense arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64
from scipy import sparse

from features.labels.corpus import Corpus
from features.labels.labelling import Space
from features.labels.units import max_pool, unit_starts, unit_videos, units_of


@dataclass(frozen=True, kw_only=True)
class View:
    """The units of one space and split that some label concerns, with their codes."""

    space: Space
    names: tuple[str, ...]
    codes: sparse.csr_array
    video: Int64[np.ndarray, " unit"]
    """Rank of each unit's video within the split."""
    positive: Bool[np.ndarray, "unit label"]
    touched: Bool[np.ndarray, "unit label"]
    hidden: Bool[np.ndarray, "unit label"]
    eligible: Bool[np.ndarray, " unit"]
    background: Bool[np.ndarray, " unit"]

    def masks(self, label: int) -> tuple[Bool[np.ndarray, " unit"], Bool[np.ndarray, " unit"]]:
        """Positive and negative units of a label."""
        return self.positive[:, label], self.eligible & ~self.touched[:, label]


def views(codes: sparse.csr_array, corpus: Corpus, *, held_out: bool, background: bool = False) -> Iterator[View]:
    """One view per space; with `background`, the background units are among its units."""
    videos = corpus.split(held_out=held_out)
    by_level = {"token": codes}
    for space, labels in corpus.labels.items():
        if space.level not in by_level:
            by_level[space.level] = max_pool(codes, corpus.records)
        starts = unit_starts(corpus.records, space.level)
        units = units_of(starts, videos)
        concerned = labels.eligible | (np.diff(labels.positive.indptr) > 0)
        if background:
            concerned = concerned | labels.background
        units = units[concerned[units]]
        own = labels.select(units)
        yield View(
            space=space,
            names=labels.names,
            codes=by_level[space.level][units],
            video=np.searchsorted(videos, unit_videos(starts)[units]).astype(np.int64),
            positive=own.positive.toarray(),
            touched=own.touched.toarray(),
            hidden=own.hidden.toarray(),
            eligible=own.eligible,
            background=own.background,
        )
