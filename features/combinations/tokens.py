"""The labels of every token of a split, and what sums over them say about a latent."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy import sparse

from features.association.explanation import groups_of_videos
from features.combinations.formulas import Formula
from features.labels.corpus import Corpus
from features.labels.units import unit_starts, units_of_tokens

KEPT_COUNTS = 20_000
"""Formulas whose counts are kept, since many latents ask about the same ones."""


class LabelledTokens:
    """The tokens of the annotated videos of a split, with all labels.

    Args:
        corpus: videos and labels.
        held_out: which split.
    """

    def __init__(self, corpus: Corpus, *, held_out: bool) -> None:
        groups = groups_of_videos(corpus)
        videos: list[int] = np.flatnonzero((groups > 0) if held_out else (groups == 0)).tolist()
        n_tokens = corpus.records[-1].row_stop if corpus.records else 0
        self.place: Int32[np.ndarray, " stored_token"] = np.full(n_tokens, -1, dtype=np.int32)
        """Number of each stored token among these; -1 where it is none of them."""
        starts = {space.level: unit_starts(corpus.records, space.level) for space in corpus.labels}
        units: dict[str, list[Int64[np.ndarray, " token"]]] = {level: [] for level in starts}
        self.n = 0
        for video in videos:
            record = corpus.records[video]
            n_own = record.row_stop - record.row_start
            self.place[record.row_start : record.row_stop] = np.arange(self.n, self.n + n_own)
            self.n += n_own
            for level, parts in units.items():
                parts.append(starts[level][video] + units_of_tokens(record, level))
        rows = {
            level: np.concatenate([np.empty(0, dtype=np.int64), *parts]).astype(np.int64)
            for level, parts in units.items()
        }
        sizes = [corpus.records[video].grid.n_tokens for video in videos]
        self.group = np.repeat(groups[videos], sizes)
        """Group of the jackknife of each token."""
        self.video = np.repeat(np.array(videos, dtype=np.int64), sizes)
        positive = [labels.select(rows[space.level]).positive for space, labels in corpus.labels.items()]
        self.rows = sparse.csr_array(sparse.hstack(positive, format="csr")).astype(np.int8)
        """[token, label], 1 where a token has a label; labels in the order of `Corpus.all_labels`."""
        self._columns = sparse.csc_array(self.rows)
        self.counts_with = lru_cache(maxsize=KEPT_COUNTS)(self._counts_with)

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return self.rows.shape[1]

    def column(self, label: int) -> Bool[np.ndarray, " token"]:
        """The tokens that have a label."""
        mask = np.zeros(self.n, dtype=bool)
        mask[self._columns.indices[self._columns.indptr[label] : self._columns.indptr[label + 1]]] = True
        return mask

    def n_with_label(self) -> Int64[np.ndarray, " label"]:
        """Tokens of each label."""
        return np.diff(self._columns.indptr).astype(np.int64)

    def _counts_with(self, formula: Formula) -> tuple[int, Int64[np.ndarray, " label"]]:
        """Tokens at which a formula holds, and those of them that have each label."""
        holds = formula.holds(self.column)
        n = int(holds.sum())
        if 2 * n <= self.n:
            return n, self._count(np.flatnonzero(holds))
        return n, self.n_with_label() - self._count(np.flatnonzero(~holds))

    def _count(self, tokens: Int64[np.ndarray, " token"]) -> Int64[np.ndarray, " label"]:
        return np.bincount(self.rows[tokens].indices, minlength=self.n_labels).astype(np.int64)


class ActiveTokens:
    """Where a latent is active among the tokens of a split.

    Args:
        tokens: of the split.
        stored: tokens of the store at which it is active, ascending.
        value: its activation there.
    """

    def __init__(self, tokens: LabelledTokens, stored: np.ndarray, value: np.ndarray) -> None:
        place = tokens.place[stored]
        self.token = place[place >= 0]
        self.value: Float64[np.ndarray, " active"] = value[place >= 0].astype(np.float64)
        self.rows = tokens.rows[self.token]
        self._columns = sparse.csc_array(self.rows)
        self.n = tokens.n
        self.total, self.total_squared = float(self.value.sum()), float((self.value**2).sum())

    def column(self, label: int) -> Bool[np.ndarray, " active"]:
        """The active tokens that have a label."""
        mask = np.zeros(len(self.token), dtype=bool)
        mask[self._columns.indices[self._columns.indptr[label] : self._columns.indptr[label + 1]]] = True
        return mask

    def sums_with(self, formula: Formula | None) -> tuple[float, Float64[np.ndarray, " label"]]:
        """Sum of the activation where a formula holds (everywhere without one), and where each label does besides."""
        value = self.value if formula is None else np.where(formula.holds(self.column), self.value, 0.0)
        entries = np.repeat(value, np.diff(self.rows.indptr))
        return float(value.sum()), np.bincount(self.rows.indices, weights=entries, minlength=self.rows.shape[1])

    def correlation(self, n_true: np.ndarray | float, sum_true: np.ndarray | float) -> Float64[np.ndarray, ...]:
        """Correlation with what is 1 at `n_true` tokens, over which the activation sums to `sum_true`.

        It is 0 where either side never varies.
        """
        n_true, sum_true = np.asarray(n_true, dtype=np.float64), np.asarray(sum_true, dtype=np.float64)
        covariance = self.n * sum_true - self.total * n_true
        spread = max(self.n * self.total_squared - self.total**2, 0.0)
        scale = np.sqrt(spread) * np.sqrt(np.clip(self.n * n_true - n_true**2, 0, None))
        return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-9)
