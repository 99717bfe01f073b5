"""How much of each latent each label explains: all labels compete on the same tokens.

Every label is a function on visual tokens, 1 where it is positive (one of frames or videos at all their tokens) and 0
elsewhere, and a latent's activation is another. Their Pearson correlation over all tokens of annotated videos compares
labels of every kind with each other: objects with their parts, "swapping" with "any frame of a cup game", the object at
a place with the place. Its square is the share of the activation's variance that the label explains.

The strongest rival of place and time is no label but the latent's own mean activation on train videos at each place and
time step: what somebody would predict who knows where and when, but not what.

Correlations come from sums over what is not zero, per split and, on held-out videos, per group of videos, so that
leaving out one group at a time gives their standard errors (delete-a-group jackknife).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.runs import Runs, cumulative
from features.association.selection import MAX_NONZEROS
from features.codes import Codes
from features.division import ALONE, Division, blocks_of
from features.labels.corpus import Corpus
from features.labels.labelling import ANNOTATED
from features.labels.units import unit_starts

N_GROUPS = 10
"""Groups of held-out videos of which the jackknife leaves out one at a time."""

OF_TOKENS = tuple(space for space in ANNOTATED if space.level == "token")
"""Spaces of annotated tokens."""


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Sums over the tokens of groups of videos that give the correlation of latents with labels."""

    n: Float64[np.ndarray, " group"]
    """Tokens."""
    latent: Float64[np.ndarray, "group latent"]
    latent_squared: Float64[np.ndarray, "group latent"]
    label: Float64[np.ndarray, "group label"]
    """A label is 0 or 1, so that the sum of its squares is the same."""
    product: Float64[np.ndarray, "group latent label"]

    def over(self, groups: Bool[np.ndarray, " group"]) -> Sums:
        """Those of some groups added up, as one group."""
        return Sums(
            n=_added(self.n[groups])[None],
            latent=_added(self.latent[groups])[None],
            latent_squared=_added(self.latent_squared[groups])[None],
            label=_added(self.label[groups])[None],
            product=_added(self.product[groups])[None],
        )

    def correlations(self) -> Float64[np.ndarray, "group latent label"]:
        """Pearson correlations within each group; 0 where a side never varies."""
        n = self.n[:, None, None]
        latent, label = self.latent[:, :, None], self.label[:, None, :]
        covariance = n * self.product - latent * label
        spread_latent = np.clip(n * self.latent_squared[:, :, None] - latent**2, 0, None)
        spread_label = np.clip(n * label - label**2, 0, None)
        scale = np.sqrt(spread_latent) * np.sqrt(spread_label)
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-9)

    def with_one_left_out(self) -> Float64[np.ndarray, "group latent label"]:
        """Pearson correlations over all groups but the first, which is of train videos, and each of the others."""
        number = np.arange(len(self.n))
        return np.concatenate(
            [self.over((number > 0) & (number != index)).correlations() for index in range(1, len(number))]
        )


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What each label explains of each latent; labels in the order of `Corpus.all_labels`."""

    train: Float64[np.ndarray, "latent label"]
    """Correlation on train videos."""
    held_out: Float64[np.ndarray, "latent label"]
    """Correlation on held-out videos."""
    place_time: Float64[np.ndarray, " latent"]
    """Correlation on held-out videos with the latent's mean activation on train videos at each place and time."""
    top_error: Float64[np.ndarray, " latent"]
    """Standard error, over held-out videos, of the correlation with the label that is best on train."""
    lead_error: Float64[np.ndarray, "latent label"]
    """Standard error of how much more that label correlates than each other one."""


def jackknife_error(estimates: Float64[np.ndarray, "group ..."]) -> Float64[np.ndarray, ...]:
    """Standard error of an estimate from its values with one group left out at a time.

    Source: Efron and Stein 1981, equation 1.6, with groups in place of observations.
    """
    n = len(estimates)
    spread = _added((estimates - _added(estimates) / n) ** 2)
    return np.asarray(np.sqrt((n - 1) / n * spread))


def _added(parts: Float64[np.ndarray, "part ..."]) -> Float64[np.ndarray, ...]:
    """Sum over the first axis in its order; numpy's own order, and so its rounding, depends on the other axes."""
    total = np.zeros(parts.shape[1:])
    for part in parts:
        total += part
    return total


def explain(codes: Codes, corpus: Corpus, division: Division = ALONE) -> Explanation:
    """Correlate all latents with all labels; every process of the division gets the result.

    Every latent is read once, by the process whose share it is in, and as many at a time as memory allows.
    """
    n_active = codes.n_active()
    own = division.share_by_cost(n_active)
    shapes = {field.name: (len(own),) for field in fields(Explanation)}
    shapes |= {name: (len(own), len(corpus.all_labels())) for name in ("train", "held_out", "lead_error")}
    found = {name: np.zeros(shape) for name, shape in shapes.items()}
    if corpus.labels:
        tokens = _Tokens(corpus)
        blocks = list(blocks_of(n_active[own.start : own.stop] + tokens.n_sums, MAX_NONZEROS))
        for block in tqdm(blocks, unit="blocks", desc="explain latents"):
            some = tokens.explain(codes.by_latent(np.arange(own.start + block.start, own.start + block.stop)))
            for name, values in found.items():
                values[block.start : block.stop] = getattr(some, name)
    return Explanation(**{name: division.join(values) for name, values in found.items()})


class _Tokens:
    """The tokens of a store: to which group of videos each belongs, where and when it is, and what labels it has.

    All numbers of a label are kept once per group of videos, side by side, so that one pass over a latent's activations
    in the order of the tokens gives the sums of every group.
    """

    def __init__(self, corpus: Corpus) -> None:
        of_video = groups_of_videos(corpus)
        self._n_groups = 1 + N_GROUPS
        self._n_cells, self._n_steps = corpus.places.n_cells, corpus.places.n_t
        sizes: Sequence[int] = [record.grid.n_tokens for record in corpus.records]
        frames = np.diff(unit_starts(corpus.records, "frame"))
        self._group: Int8[np.ndarray, " token"] = np.repeat(of_video.astype(np.int8), sizes)
        self._all_known = bool((of_video >= 0).all())
        nothing = np.empty(0, dtype=np.int32)
        cells = [corpus.places.cells(record.grid).astype(np.int32) for record in corpus.records]
        self._cell: Int32[np.ndarray, " token"] = np.concatenate([nothing, *cells])
        """Cell of each token, counted through all groups."""
        self._cell += self._group.astype(np.int32) * self._n_cells
        patches = [record.grid.n_tokens // record.grid.n_t for record in corpus.records]
        self._unit = {
            "token": _rows_of_tokens(corpus),
            "frame": np.repeat(np.arange(int(frames.sum()), dtype=np.int32), np.repeat(patches, frames)),
            "video": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
        }
        """Row of the labels, frame and video of each token."""
        counts = np.bincount(
            self._cell[self._group >= 0].astype(np.int64), minlength=self._n_groups * self._n_cells
        ).astype(np.float64)
        self._cell_tokens = counts.reshape(self._n_groups, self._n_cells)
        row = self._unit["token"]
        group_of_row = np.full(int(row.max(initial=-1)) + 1, -1, dtype=np.int8)
        group_of_row[row] = self._group
        group_of = {"token": group_of_row, "frame": np.repeat(of_video, frames), "video": of_video}
        n_tokens_of = {
            "token": np.bincount(row).astype(np.float64),
            "frame": np.repeat(patches, frames).astype(np.float64),
            "video": np.array(sizes, dtype=np.float64),
        }
        self._labels: dict[str, sparse.csr_array] = {}
        """By level of units: the labels of all its spaces, group by group; by place and by time those of one group."""
        self._columns: dict[str, list[int]] = {level: [] for level in ("token", "frame", "video", "place", "time")}
        """Columns of each level's labels among all."""
        by_level: dict[str, list[sparse.csr_array]] = {level: [] for level in self._columns}
        label = 0
        for level, values in _label_values(corpus):
            by_level[level].append(values)
            self._columns[level] += range(label, label + values.shape[1])
            label += values.shape[1]
        self._label_tokens = np.zeros((self._n_groups, label))
        for level, values in by_level.items():
            if not values:
                continue
            joined = sparse.csr_array(sparse.hstack(values, format="csr")) if len(values) > 1 else values[0]
            if level in ("place", "time"):
                self._labels[level] = joined
                tokens = self._by(level, self._cell_tokens)
                self._label_tokens[:, self._columns[level]] = (sparse.csr_array(tokens) @ joined).toarray()
            else:
                self._labels[level] = _by_group(joined, group_of[level], self._n_groups)
                counted = n_tokens_of[level] @ self._labels[level]
                self._label_tokens[:, self._columns[level]] = counted.reshape(self._n_groups, -1)

    @property
    def n_sums(self) -> int:
        """Numbers that are kept for each latent, whether it is active or not."""
        return self._n_groups * (self._n_cells + self._label_tokens.shape[1])

    def explain(self, codes: sparse.csc_array) -> Explanation:
        """Correlate some latents, of which `codes` are those on all tokens."""
        n = codes.shape[1]
        token, value, pointers = self._known(codes)
        latent = np.repeat(np.arange(n), np.diff(pointers))
        row = latent * self._n_groups + self._group[token]

        def total(index: np.ndarray, values: np.ndarray, *shape: int) -> np.ndarray:
            sums = np.bincount(index, weights=values, minlength=int(np.prod(shape)))
            return np.asarray(sums, dtype=np.float64).reshape(shape)  # of nothing, numpy's sums are whole numbers

        n_groups, n_cells = self._n_groups, self._n_cells
        by_cell = total(latent * (n_groups * n_cells) + self._cell[token], value, n, n_groups, n_cells)
        product = np.empty((n, n_groups, self._label_tokens.shape[1]))
        for level, labels in self._labels.items():
            if level == "token":
                # Tokens that share a row share a column here, which a product of matrices adds up in their order.
                summed = sparse.csr_array((value, self._unit[level][token], pointers), shape=(n, labels.shape[0]))
            elif level in self._unit:
                summed = _pooled(value, self._unit[level][token], pointers, labels.shape[0])
            else:
                summed = sparse.csr_array(self._by(level, by_cell.reshape(n * n_groups, n_cells)))
            product[:, :, self._columns[level]] = (summed @ labels).toarray().reshape(n, n_groups, -1)
        sums = Sums(
            n=self._cell_tokens.sum(axis=1),
            latent=total(row, value, n, n_groups).T,
            latent_squared=total(row, value**2, n, n_groups).T,
            label=self._label_tokens,
            product=product.transpose(1, 0, 2),
        )
        number = np.arange(self._n_groups)
        held_out, train = sums.over(number > 0), sums.over(number == 0).correlations()[0]
        left_out = sums.with_one_left_out()
        top = np.take_along_axis(left_out, train.argmax(axis=1)[None, :, None], axis=2)
        return Explanation(
            train=train,
            held_out=held_out.correlations()[0],
            place_time=self._by_place_time(by_cell.transpose(1, 0, 2), held_out),
            top_error=jackknife_error(top[:, :, 0]),
            lead_error=jackknife_error(top - left_out),
        )

    def _by(self, level: str, by_cell: Float64[np.ndarray, "row cell"]) -> Float64[np.ndarray, "row place_or_time"]:
        """Sums over time for each place, or over places for each time."""
        cells = by_cell.reshape(len(by_cell), self._n_steps, -1)
        return cells.sum(axis=1 if level == "place" else 2)

    def _known(
        self, codes: sparse.csc_array
    ) -> tuple[Int32[np.ndarray, " active"], Float64[np.ndarray, " active"], Int64[np.ndarray, " latent_and_end"]]:
        """Tokens of annotated videos where latents are active, their values, and where each latent's begin and end."""
        value = codes.data.astype(np.float64)
        if self._all_known:
            return codes.indices, value, codes.indptr.astype(np.int64)
        kept = self._group[codes.indices] >= 0
        return codes.indices[kept], value[kept], cumulative(kept)[codes.indptr]

    def _by_place_time(
        self, by_cell: Float64[np.ndarray, "group latent cell"], held_out: Sums
    ) -> Float64[np.ndarray, " latent"]:
        """Correlation on held-out videos with the mean activation on train videos by cell."""
        tokens_train, tokens = self._cell_tokens[0], self._cell_tokens[1:].sum(axis=0)
        if not tokens_train.sum() or not tokens.sum():
            return np.zeros(by_cell.shape[1])
        overall = by_cell[0].sum(axis=1, keepdims=True) / tokens_train.sum()
        expected = np.where(tokens_train > 0, by_cell[0] / np.maximum(tokens_train, 1), overall)
        # Row by row rather than as products of matrices, whose rounding depends on how many latents there are.
        n, total, latent = float(held_out.n[0]), (expected * tokens).sum(axis=1), held_out.latent[0]
        covariance = n * (expected * _added(by_cell[1:])).sum(axis=1) - total * latent
        spread = np.clip(n * (expected**2 * tokens).sum(axis=1) - total**2, 0, None)
        spread = spread * np.clip(n * held_out.latent_squared[0] - latent**2, 0, None)
        return np.divide(covariance, np.sqrt(spread), out=np.zeros_like(covariance), where=np.sqrt(spread) > 1e-9)


def groups_of_videos(corpus: Corpus) -> Int64[np.ndarray, " video"]:
    """0 for train videos, 1 to `N_GROUPS` for held-out ones in turn, -1 for those that are not annotated."""
    group = np.zeros(len(corpus.records), dtype=np.int64)
    held = np.flatnonzero(corpus.held_out & corpus.annotated)
    group[held] = 1 + np.arange(len(held)) % N_GROUPS
    group[~corpus.annotated] = -1
    return group


def _rows_of_tokens(corpus: Corpus) -> Int32[np.ndarray, " token"]:
    """Row of each token's labels, which all spaces of annotated tokens share."""
    rows = {id(labels.row): labels.row for space, labels in corpus.labels.items() if space in OF_TOKENS}
    assert len(rows) <= 1, "spaces of tokens share their regions"
    row = next(iter(rows.values()), None)
    return np.arange(corpus.records[-1].row_stop, dtype=np.int32) if row is None else row


def _label_values(corpus: Corpus) -> Iterator[tuple[str, sparse.csr_array]]:
    """Values of each space's labels: by region or frame where annotated; of places by place, of times by time."""
    n_steps = corpus.places.n_t
    cells = {
        name: own.reshape(n_steps, -1)[:, 0] if level == "time" else own.reshape(n_steps, -1)[0]
        for level, names in zip(("place", "time"), corpus.places.labels(), strict=True)
        for name, own in names.items()
    }
    for space, labels in corpus.labels.items():
        if space in ANNOTATED:
            yield space.level, labels.by_row.positive.astype(np.float64)
        else:
            stacked = np.stack([cells[name] for name in labels.names], axis=1)
            yield space.kind, sparse.csr_array(stacked.astype(np.float64))


def _by_group(values: sparse.csr_array, group: np.ndarray, n_groups: int) -> sparse.csr_array:
    """Values [unit, label] in the columns of the unit's group [unit, group and label]; none where it is in none."""
    n_units, n_labels = values.shape
    size = np.diff(values.indptr)
    kept = np.repeat(group >= 0, size)
    column = (np.repeat(group.astype(np.int32), size) * n_labels + values.indices)[kept]
    pointers = cumulative(kept)[values.indptr]
    return sparse.csr_array((values.data[kept], column, pointers), shape=(n_units, n_groups * n_labels))


def _pooled(
    value: Float64[np.ndarray, " active"],
    unit: Int32[np.ndarray, " active"],
    pointers: Int64[np.ndarray, " latent_and_end"],
    n_units: int,
) -> sparse.csr_array:
    """Sums of activations over the tokens of each frame or video [latent, unit]."""
    is_first = np.ones(len(unit), dtype=bool)
    is_first[1:] = unit[1:] != unit[:-1]
    is_first[pointers[:-1][np.diff(pointers) > 0]] = True
    runs = Runs.from_first(is_first)
    ends = cumulative(is_first)[pointers]
    return sparse.csr_array((runs.total(value), unit[runs.start], ends), shape=(len(pointers) - 1, n_units))
