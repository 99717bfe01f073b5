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

    A unit is negative for a label if it is eligible and the label does not touch it. Units with the same labels share a
    row: the tokens of a region, or of a cell. Rows of the other split may be among them, without units.
    """

    def __init__(
        self,
        corpus: Corpus,
        space: Space,
        *,
        held_out: bool,
        level: LevelUnits | None = None,
        row: Int32[np.ndarray, " unit"] | None = None,
    ) -> None:
        """Take the labels of a space.

        Args:
            corpus: videos and labels.
            space: which of its labels.
            held_out: which split.
            level: the units of the space's level and split, where they are known.
            row: row of each unit, where it is known.
        """
        videos = corpus.split(held_out=held_out)
        starts = unit_starts(corpus.records, space.level)
        labels = corpus.labels[space]
        self.space = space
        self.names = labels.names
        self.level = level or LevelUnits.of(corpus, space.level, held_out=held_out)
        self.n_videos = len(videos)
        self.video = self.level.video
        """Rank of each unit's video within the split."""
        self.start: Int64[np.ndarray, " video_and_end"] = np.cumsum([0, *np.diff(starts)[videos]], dtype=np.int64)
        """First unit of each video."""
        self.row: Int32[np.ndarray, " unit"] = _rows(corpus, space, held_out=held_out) if row is None else row
        """Row of each unit."""
        own = labels.select(units_of(starts, videos)) if labels.row is None else labels.by_row
        self.eligible = own.eligible
        """Rows whose units may be negatives."""
        self.background = own.background
        """Rows whose units are reported separately."""
        self.n_units_of_row: Int64[np.ndarray, " row"] = np.bincount(self.row, minlength=len(own.eligible))
        self.n_hidden: Int64[np.ndarray, " label"] = _added(own.hidden, self.n_units_of_row)
        """Positive units where the object is hidden."""
        self._take(own)

    def _take(self, own: UnitLabels) -> None:
        """Take what the labels touch."""
        eligible = np.repeat(own.eligible, np.diff(own.touched.indptr))
        spoiled = _with_data(own.touched, np.where(eligible, SPOILED, 0))
        self.marks = sparse.csr_array(spoiled + _with_data(own.positive, np.full(own.positive.nnz, POSITIVE)))
        """Int8 [row, label]: bits `POSITIVE` and `SPOILED` of what a label touches."""
        self.marks.sort_indices()

    @classmethod
    def of_split(cls, corpus: Corpus, *, held_out: bool) -> list[SplitUnits]:
        """The units of all spaces, which share those of a level, and rows where the tokens of the store share them."""
        levels = {
            level: LevelUnits.of(corpus, level, held_out=held_out) for level in {space.level for space in corpus.labels}
        }
        rows: dict[int, Int32[np.ndarray, " unit"]] = {}
        for space, labels in corpus.labels.items():
            if labels.row is not None and id(labels.row) not in rows:
                rows[id(labels.row)] = _rows(corpus, space, held_out=held_out)
        return [
            (PlaceUnits if isinstance(labels, PlaceLabels) else cls)(
                corpus, space, held_out=held_out, level=levels[space.level], row=rows.get(id(labels.row))
            )
            for space, labels in corpus.labels.items()
        ]

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.row)

    @property
    def n_labels(self) -> int:
        """Number of labels of the space."""
        return len(self.names)

    @cached_property
    def marks_by_label(self) -> sparse.csc_array:
        """`marks` by label."""
        return sparse.csc_array(self.marks)

    @cached_property
    def concerned(self) -> Bool[np.ndarray, " row"]:
        """Rows that are positive or negative for some label."""
        is_positive = np.zeros(len(self.eligible), dtype=bool)
        row = np.repeat(np.arange(len(self.eligible)), np.diff(self.marks.indptr))
        is_positive[row[(self.marks.data & POSITIVE) > 0]] = True
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
        weights = np.where(self.eligible, self.n_units_of_row, 0)
        return np.bincount(self._video_of_row, weights=weights, minlength=self.n_videos).astype(np.int64)

    @property
    def n_negative(self) -> Int64[np.ndarray, "video label"]:
        """Negative units."""
        return self.n_eligible[:, None] - self.n_spoiled

    def n_negative_of(self, labels: Int64[np.ndarray, " pair"]) -> Int64[np.ndarray, "video pair"]:
        """Negative units for some labels."""
        return self.n_eligible[:, None] - self.n_spoiled[:, labels]

    @property
    def n_background(self) -> int:
        """Background units."""
        return int(self.n_units_of_row[self.background].sum())

    @cached_property
    def n_positive_background(self) -> Int64[np.ndarray, " label"]:
        """Background units that are positive."""
        is_positive = _with_data(self.marks, (self.marks.data & POSITIVE) > 0)
        return _added(is_positive, np.where(self.background, self.n_units_of_row, 0))

    def classes_of(self, labels: Int64[np.ndarray, " label"]) -> Iterator[tuple[int, ClassOf]]:
        """Each of some labels with what tells the class of units for it, until the next label is asked for."""
        marks = self.marks_by_label
        classes = np.where(self.eligible, NEGATIVE_UNIT, NEITHER).astype(np.int8)
        for label in labels:
            own = slice(int(marks.indptr[label]), int(marks.indptr[label + 1]))
            touched = marks.indices[own]
            before = classes[touched]
            classes[touched] = np.where((marks.data[own] & POSITIVE) > 0, POSITIVE_UNIT, NEITHER)
            yield int(label), lambda unit: classes[self.row[unit]]
            classes[touched] = before

    def entries(self, codes: sparse.csc_array) -> sparse.csc_array:
        """Activations [unit, latent] of some latents on these units, from those on all tokens of the store."""
        return self.level.entries(codes)

    @cached_property
    def _video_of_row(self) -> Int32[np.ndarray, " row"]:
        """Video of each row that has units."""
        video = np.zeros(len(self.eligible), dtype=np.int32)
        video[self.row] = self.video
        return video

    def _per_video(self, bit: int) -> Int64[np.ndarray, "video label"]:
        n_labels = self.n_labels
        chosen = (self.marks.data & bit) > 0
        row = np.repeat(np.arange(len(self.eligible), dtype=np.int32), np.diff(self.marks.indptr))[chosen]
        cells = self._video_of_row[row].astype(np.int64) * n_labels + self.marks.indices[chosen]
        counts = np.bincount(cells, weights=self.n_units_of_row[row], minlength=self.n_videos * n_labels)
        return counts.reshape(self.n_videos, n_labels).astype(np.int64)


class PlaceUnits(SplitUnits):
    """Tokens whose labels follow from their cells, which are the rows; see `features.labels.place_labels`."""

    def _take(self, own: UnitLabels) -> None:
        self.in_cells: Bool[np.ndarray, "cell label"] = own.positive.toarray()
        self.marks = sparse.csr_array(np.where(self.in_cells, np.int8(POSITIVE | SPOILED), np.int8(0)))

    @cached_property
    def n_positive(self) -> Int64[np.ndarray, "video label"]:
        """Positive units."""
        labels = self.in_cells.astype(np.float64)
        counts = np.zeros((self.n_videos, self.n_labels))
        for video, own in enumerate(counts):
            cells = np.bincount(self.row[self.start[video] : self.start[video + 1]], minlength=len(labels))
            own += cells @ labels
        return counts.astype(np.int64)

    @cached_property
    def n_spoiled(self) -> Int64[np.ndarray, "video label"]:
        """The same: whatever a label touches could be a negative of others."""
        return self.n_positive

    @cached_property
    def n_eligible(self) -> Int64[np.ndarray, " video"]:
        """All units."""
        return np.diff(self.start)


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


def _rows(corpus: Corpus, space: Space, *, held_out: bool) -> Int32[np.ndarray, " unit"]:
    """Row of each unit of a split; the units are their own rows where they share none."""
    starts, videos = unit_starts(corpus.records, space.level), corpus.split(held_out=held_out)
    of_store = corpus.labels[space].row
    if of_store is None:
        return np.arange(int(np.diff(starts)[videos].sum()), dtype=np.int32)
    return np.concatenate([np.empty(0, dtype=np.int32), *(of_store[starts[v] : starts[v + 1]] for v in videos)])


def _added(matrix: sparse.csr_array, weights: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " label"]:
    """Sum over the rows, each times its weight, of a matrix that is 1 where it is not zero."""
    weight = np.repeat(weights, np.diff(matrix.indptr))
    return np.bincount(matrix.indices, weights=weight * matrix.data, minlength=matrix.shape[1]).astype(np.int64)
