"""The units of one space and split with their labels as sparse matrices, and the activations of some latents on them.

Nothing here is as large as units × labels or units × latents: activations are those that are not zero, label by label
what they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int8, Int32, Int64
from scipy import sparse

from collect.reading import VideoRecord
from features.labels.corpus import Corpus
from features.labels.place_labels import PlaceLabels
from features.labels.unit_labels import Space, UnitLabels
from features.labels.units import unit_starts, units_of, units_of_tokens

POSITIVE, SPOILED = 2, 1
"""Bits of `SplitUnits.marks`: positive for a label; and one that could be a negative but is touched by it."""
POSITIVE_UNIT, NEGATIVE_UNIT, NEITHER = 2, 1, 0
"""Classes of units for one label."""
ClassOf = Callable[[np.ndarray], Int8[np.ndarray, " unit"]]
"""Class of each of some units."""


class SplitUnits:
    """All units of the videos of one split in one space.

    A unit is negative for a label if it is eligible and the label does not touch it.
    """

    def __init__(self, corpus: Corpus, space: Space, *, held_out: bool, level: LevelUnits | None = None) -> None:
        """Take the labels of a space.

        Args:
            corpus: videos and labels.
            space: which of its labels.
            held_out: which split.
            level: the units of the space's level and split, where they are known.
        """
        videos = corpus.split(held_out=held_out)
        starts = unit_starts(corpus.records, space.level)
        units = units_of(starts, videos)
        own = corpus.labels[space].select(units)
        self.space = space
        self.names = own.names
        self.level = level or LevelUnits.of(corpus, space.level, held_out=held_out)
        self.n_videos = len(videos)
        self.video = self.level.video
        """Rank of each unit's video within the split."""
        self.start: Int64[np.ndarray, " video_and_end"] = np.cumsum([0, *np.diff(starts)[videos]], dtype=np.int64)
        """First unit of each video."""
        self.eligible = own.eligible
        self.background = own.background
        self.n_hidden: Int64[np.ndarray, " label"] = np.asarray(own.hidden.sum(axis=0), dtype=np.int64).reshape(-1)
        """Positive units where the object is hidden."""
        self._take(own)

    def _take(self, own: UnitLabels) -> None:
        """Take what the labels touch."""
        eligible = np.repeat(own.eligible, np.diff(own.touched.indptr))
        spoiled = _with_data(own.touched, np.where(eligible, SPOILED, 0))
        self.marks = sparse.csr_array(spoiled + _with_data(own.positive, np.full(own.positive.nnz, POSITIVE)))
        """Int8 [unit, label]: bits `POSITIVE` and `SPOILED` of what a label touches."""
        self.marks.sort_indices()

    @classmethod
    def of_split(cls, corpus: Corpus, *, held_out: bool) -> list[SplitUnits]:
        """The units of all spaces, which share those of a level."""
        levels = {
            level: LevelUnits.of(corpus, level, held_out=held_out) for level in {space.level for space in corpus.labels}
        }
        return [
            (PlaceUnits if isinstance(labels, PlaceLabels) else cls)(
                corpus, space, held_out=held_out, level=levels[space.level]
            )
            for space, labels in corpus.labels.items()
        ]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.eligible)

    @property
    def n_labels(self) -> int:
        """Number of labels of the space."""
        return len(self.names)

    @cached_property
    def marks_by_label(self) -> sparse.csc_array:
        """`marks` by label."""
        return sparse.csc_array(self.marks)

    @cached_property
    def concerned(self) -> Bool[np.ndarray, " unit"]:
        """Units that are positive or negative for some label."""
        is_positive = np.zeros(self.n_units, dtype=bool)
        unit = np.repeat(np.arange(self.n_units), np.diff(self.marks.indptr))
        is_positive[unit[(self.marks.data & POSITIVE) > 0]] = True
        return self.eligible | is_positive

    @cached_property
    def n_positive(self) -> Int64[np.ndarray, "video label"]:
        """Positive units."""
        return self._per_video(POSITIVE)

    @cached_property
    def n_spoiled(self) -> Int64[np.ndarray, "video label"]:
        """Eligible units that a label touches, which are not its negatives."""
        return self._per_video(SPOILED)

    @cached_property
    def n_eligible(self) -> Int64[np.ndarray, " video"]:
        """Eligible units."""
        return np.bincount(self.video[self.eligible], minlength=self.n_videos).astype(np.int64)

    @property
    def n_negative(self) -> Int64[np.ndarray, "video label"]:
        """Negative units."""
        return self.n_eligible[:, None] - self.n_spoiled

    @cached_property
    def n_positive_background(self) -> Int64[np.ndarray, " label"]:
        """Background units that are positive."""
        label, unit = self.marks_by_label, self.background[self.marks_by_label.indices]
        counted = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(unit & ((label.data & POSITIVE) > 0))])
        return np.diff(counted[label.indptr])

    def classes_of(self, labels: Int64[np.ndarray, " label"]) -> Iterator[tuple[int, ClassOf]]:
        """Each of some labels with what tells the class of units for it, until the next label is asked for."""
        marks = self.marks_by_label
        classes = np.where(self.eligible, NEGATIVE_UNIT, NEITHER).astype(np.int8)
        for label in labels:
            own = slice(int(marks.indptr[label]), int(marks.indptr[label + 1]))
            touched = marks.indices[own]
            before = classes[touched]
            classes[touched] = np.where((marks.data[own] & POSITIVE) > 0, POSITIVE_UNIT, NEITHER)
            yield int(label), classes.__getitem__
            classes[touched] = before

    def entries(self, codes: sparse.csc_array) -> sparse.csc_array:
        """Activations [unit, latent] of some latents on these units, from those on all tokens of the store."""
        return self.level.entries(codes)

    def _per_video(self, bit: int) -> Int64[np.ndarray, "video label"]:
        n_labels = self.n_labels
        chosen = (self.marks.data & bit) > 0
        video = np.repeat(self.video, np.diff(self.marks.indptr))[chosen]
        cells = video.astype(np.int64) * n_labels + self.marks.indices[chosen]
        return np.bincount(cells, minlength=self.n_videos * n_labels).reshape(self.n_videos, n_labels).astype(np.int64)


class PlaceUnits(SplitUnits):
    """Tokens whose labels follow from their cells; see `features.labels.place_labels`."""

    def _take(self, own: UnitLabels) -> None:
        assert isinstance(own, PlaceLabels), "labels of places"
        self.in_cells = own.in_cells
        self.cell = own.cell

    @property
    def marks(self) -> sparse.csr_array:
        """As of other spaces, made anew each time; every token has several."""
        both = sparse.csr_array(np.where(self.in_cells, np.int8(POSITIVE | SPOILED), np.int8(0)))
        return sparse.csr_array(both[self.cell])

    @cached_property
    def concerned(self) -> Bool[np.ndarray, " unit"]:
        """All units."""
        return np.ones(self.n_units, dtype=bool)

    @cached_property
    def n_positive(self) -> Int64[np.ndarray, "video label"]:
        """Positive units."""
        labels = self.in_cells.astype(np.float64)
        counts = np.zeros((self.n_videos, self.n_labels))
        for video, own in enumerate(counts):
            cells = np.bincount(self.cell[self.start[video] : self.start[video + 1]], minlength=len(labels))
            own += cells @ labels
        return counts.astype(np.int64)

    @cached_property
    def n_spoiled(self) -> Int64[np.ndarray, "video label"]:
        """The same: whatever a label touches could be a negative of others."""
        return self.n_positive

    @cached_property
    def n_positive_background(self) -> Int64[np.ndarray, " label"]:
        """There is no background."""
        return np.zeros(self.n_labels, dtype=np.int64)

    def classes_of(self, labels: Int64[np.ndarray, " label"]) -> Iterator[tuple[int, ClassOf]]:
        """Each of some labels with what tells the class of units for it."""
        for label in labels:
            of_cell = np.where(self.in_cells[:, label], POSITIVE_UNIT, NEGATIVE_UNIT).astype(np.int8)
            yield int(label), lambda unit, of_cell=of_cell: of_cell[self.cell[unit]]


@dataclass(frozen=True, kw_only=True)
class LevelUnits:
    """Where the tokens of the store are among the units of a split: themselves, frames or videos."""

    unit: Int32[np.ndarray, " token"]
    """Unit of each token of the store; -1 where it is of no video of the split."""
    video: Int32[np.ndarray, " unit"]
    """Rank of each unit's video within the split."""
    is_pooled: bool
    """Whether several tokens share a unit, whose activation is the largest of theirs."""

    @classmethod
    def of(cls, corpus: Corpus, level: str, *, held_out: bool) -> LevelUnits:
        """The units of a level and split."""
        videos = corpus.split(held_out=held_out)
        n_tokens = corpus.records[-1].row_stop if corpus.records else 0
        unit = np.full(n_tokens, -1, dtype=np.int32)
        sizes: list[int] = []
        n_units = 0
        for video in videos:
            record = corpus.records[video]
            own = units_of_tokens(record, level)
            unit[record.row_start : record.row_stop] = n_units + own
            sizes.append(int(own[-1]) + 1 if len(own) else 0)
            n_units += sizes[-1]
        of_unit = np.repeat(np.arange(len(videos), dtype=np.int32), sizes)
        return cls(unit=unit, video=of_unit, is_pooled=level != "token")

    @classmethod
    def of_video(cls, record: VideoRecord, level: str) -> LevelUnits:
        """The units of one video, whose tokens are all there is."""
        unit = units_of_tokens(record, level)
        of_unit = np.zeros(int(unit[-1]) + 1, dtype=np.int32)
        return cls(unit=unit.astype(np.int32), video=of_unit, is_pooled=level != "token")

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.video)

    def entries(self, codes: sparse.csc_array) -> sparse.csc_array:
        """Activations [unit, latent], with ascending units.

        Args:
            codes: [token, latent] of the whole store, with ascending tokens.
        """
        unit = self.unit[codes.indices]
        kept = unit >= 0
        if self.is_pooled:
            first = np.ones(len(unit), dtype=bool)
            first[1:] = unit[1:] != unit[:-1]
            first[codes.indptr[:-1][np.diff(codes.indptr) > 0]] = True
            starts = np.flatnonzero(first)
            most = np.maximum.reduceat(codes.data, starts) if len(starts) else codes.data
            kept, unit, data = kept[starts], unit[starts], most
            ends = np.searchsorted(starts, codes.indptr)
        else:
            data, ends = codes.data, codes.indptr
        n_before = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])
        indptr = n_before[ends].astype(np.int32 if n_before[-1] < 2**31 else np.int64)
        return sparse.csc_array((data[kept], unit[kept], indptr), shape=(self.n_units, codes.shape[1]))


def _with_data(matrix: sparse.csr_array, data: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array((data.astype(np.int8), matrix.indices, matrix.indptr), shape=matrix.shape)
