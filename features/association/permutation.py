"""The permutation test: whole videos are given each other's annotations, within strata.

The statistic of a (latent, label) is the mean rank of the label's positive units less that of its negative ones, which
is AUROC − ½ with these as the reference. It is a ratio of sums over videos, and is summed video by video: for the loans
that the permutations of one stage give a video, the ranks of what is positive and negative under each.

Time and memory are linear in videos, in activations and in pairs: a video is under one other video's annotations per
permutation, and sums are kept for the permutations of one stage only. Most pairs are hopeless and stop early.

Source: Besag and Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78. Permutations are drawn until `h` of
them reach the observed statistic, or until there are B. Where the h-th is the n-th permutation, p = h / n; where only
g < h of B reach it, p = (g + 1) / (B + 1). Either way P(p ≤ a) ≤ a under the null.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.loans import Loan
from features.association.runs import SortedItems, sortable

Lend = Callable[[int, Int64[np.ndarray, " lender"]], Loan]
"""(borrower, lenders) -> the labels of the borrower's units under each lender's annotations."""
FIRST_STAGE = 128
"""Permutations after which hopeless pairs are dropped for the first time."""
MAX_CELLS = 4_000_000
"""Sums [permutation, pair] that are held at once, of a few numbers each."""
RANKED_NONZEROS = 8_000_000
"""Activations that are ranked at once."""


@dataclass(frozen=True, kw_only=True)
class RankedPairs:
    """The (latent, label) pairs of one space that are tested, with the ranks that they need."""

    ranks: sparse.csr_array
    """Int32 [unit, latent] from `rank_twice`, of all units of the videos that are permuted, one video after another."""
    start: Int64[np.ndarray, " video_and_end"]
    """First unit of each video."""
    column: Int64[np.ndarray, " pair"]
    """Column of `ranks` of each pair."""
    label: Int64[np.ndarray, " pair"]
    """Label of each pair, as an index into the space's names."""
    n_labels: int

    def some(self, kept: Bool[np.ndarray, " pair"]) -> RankedPairs:
        """Some of the pairs, with the latents that they need."""
        columns, column = np.unique(self.column[kept], return_inverse=True)
        ranks = self.ranks if len(columns) == self.ranks.shape[1] else self.ranks[:, columns]
        return replace(self, ranks=ranks, column=column.astype(np.int64), label=self.label[kept])


def enough_exceedances(n_permutations: int, fdr: float) -> int:
    """How many permutations must reach the observed statistic before a pair is given up.

    With that many, p is above `fdr` however the pair goes on, and so it is where the pair stops. Benjamini-Hochberg
    rejects no p-value above its rate, and asks of others only how many there are: no decision depends on stopping.
    """
    return math.floor(fdr * (n_permutations + 1)) + 1


def permutation_p_values(
    pairs: RankedPairs,
    lend: Lend,
    permutations: Int64[np.ndarray, "permutation video"],
    *,
    exceedances: int | None = None,
) -> Float64[np.ndarray, " pair"]:
    """One-sided p-values of the difference between the mean rank of positives and that of negatives.

    Args:
        pairs: what is tested.
        lend: gives the labels of a video under others' annotations.
        permutations: [b, v] is the video whose annotations video v gets in permutation b.
        exceedances: h, after which a pair stops; none stops where it is not given.

    Returns:
        See the module. A permutation that leaves no positive or no negative reaches the observed statistic. The result
        is exact, so that it depends neither on the stages nor on which pairs are tested together.
    """
    n_permutations, n_videos = permutations.shape
    h = n_permutations + 1 if exceedances is None else exceedances
    observed = _statistics(pairs, lend, np.arange(n_videos, dtype=np.int64)[None, :])[0]
    n_reached = np.zeros(len(pairs.label), dtype=np.int64)
    p_values = np.full(len(pairs.label), np.nan)
    alive = np.arange(len(pairs.label))
    left, done = pairs, 0
    while done < n_permutations and len(alive):
        size = FIRST_STAGE if done == 0 else max(FIRST_STAGE, MAX_CELLS // len(alive))
        drawn = permutations[done : done + size]
        difference = _statistics(left, lend, drawn)
        reached = ~(difference < observed[alive] - 1e-12)  # the tolerance is for the division
        counts = n_reached[alive] + np.cumsum(reached, axis=0)
        stopped = counts[-1] >= h
        p_values[alive[stopped]] = h / (done + 1 + (counts[:, stopped] >= h).argmax(axis=0))
        n_reached[alive] = counts[-1]
        done += len(drawn)
        alive = alive[~stopped]
        left = left.some(~stopped) if stopped.any() else left
    p_values[alive] = (1 + n_reached[alive]) / (1 + n_permutations)
    return p_values


def rank_twice(codes: sparse.csc_array) -> sparse.csc_array:
    """Twice the mid-rank of each activation among all units of its latent, less that of a zero: a whole number.

    Args:
        codes: [unit, latent], above 0.
    """
    n_units, n_latents = codes.shape
    ranks = np.empty(codes.nnz, dtype=np.int32)
    cuts = np.unique(np.searchsorted(codes.indptr, np.arange(0, codes.nnz, RANKED_NONZEROS)))
    for first, stop in itertools.pairwise([*cuts.tolist(), n_latents]):
        start, end = int(codes.indptr[first]), int(codes.indptr[stop])
        sizes = np.diff(codes.indptr[first : stop + 1])
        column = np.repeat(np.arange(stop - first, dtype=np.int64), sizes)
        items = SortedItems.by(column, sortable(codes.data[start:end]))
        before = (codes.indptr[first:stop].astype(np.int64) - start)[column]
        ranks[start + items.order] = (n_units - sizes)[column] + items.tie_start + items.tie_stop - 2 * before
    return sparse.csc_array((ranks, codes.indices, codes.indptr), shape=codes.shape)


def _statistics(
    pairs: RankedPairs, lend: Lend, permutations: Int64[np.ndarray, "permutation video"]
) -> Float64[np.ndarray, "permutation pair"]:
    """Mean rank of positives less that of negatives, as a share of all units; NaN where there are none of either."""
    n_drawn, n_videos = permutations.shape
    positive, negative = np.zeros((n_drawn, len(pairs.label))), np.zeros((n_drawn, len(pairs.label)))
    n_positive, n_negative = np.zeros((n_drawn, pairs.n_labels)), np.zeros((n_drawn, pairs.n_labels))
    by_column = np.argsort(pairs.column, kind="stable")
    first_of_column = np.searchsorted(pairs.column[by_column], np.arange(pairs.ranks.shape[1] + 1))
    for video in tqdm(range(n_videos), unit="videos", desc="permutation", leave=False):
        lenders, place = np.unique(permutations[:, video], return_inverse=True)
        loan = lend(video, lenders)
        own = pairs.ranks[int(pairs.start[video]) : int(pairs.start[video + 1])]
        listed = _PairEntries.of(own, pairs, by_column, first_of_column)
        eligible = own.T.astype(np.float64) @ loan.eligible.T.astype(np.float64)
        positive += listed.sums(loan.positive, len(lenders))[place]
        negative += (eligible[pairs.column].T - listed.sums(loan.spoiled, len(lenders)))[place]
        n_positive += _counts(loan.positive, len(lenders), pairs.n_labels)[place]
        n_spoiled = _counts(loan.spoiled, len(lenders), pairs.n_labels)
        n_negative += (loan.eligible.sum(axis=1)[:, None] - n_spoiled)[place]
    difference = _ratio(positive, n_positive[:, pairs.label]) - _ratio(negative, n_negative[:, pairs.label])
    return difference / (2 * pairs.ranks.shape[0])


@dataclass(frozen=True, kw_only=True)
class _PairEntries:
    """The ranks of one video once for each pair of their latent, by (unit, label)."""

    n_labels: int
    n_pairs: int
    indptr: Int64[np.ndarray, " cell_and_end"]
    """First entry of each (unit, label)."""
    pair: Int64[np.ndarray, " entry"]
    rank: Float64[np.ndarray, " entry"]

    @classmethod
    def of(
        cls,
        ranks: sparse.csr_array,
        pairs: RankedPairs,
        by_column: Int64[np.ndarray, " pair"],
        first_of_column: Int64[np.ndarray, " column_and_end"],
    ) -> _PairEntries:
        first, count = first_of_column[ranks.indices], np.diff(first_of_column)[ranks.indices]
        entry = np.repeat(np.arange(ranks.nnz), count)
        pair = by_column[np.arange(len(entry)) - (np.cumsum(count) - count - first)[entry]]
        unit = np.repeat(np.arange(ranks.shape[0]), np.diff(ranks.indptr))[entry]
        cell = unit * pairs.n_labels + pairs.label[pair]
        order = np.argsort(cell, kind="stable")
        size = np.bincount(cell, minlength=ranks.shape[0] * pairs.n_labels)
        return cls(
            n_labels=pairs.n_labels,
            n_pairs=len(pairs.label),
            indptr=np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(size)]),
            pair=pair[order],
            rank=ranks.data[entry[order]].astype(np.float64),
        )

    def sums(self, lent: Int64[np.ndarray, "lent 3"], n_lenders: int) -> Float64[np.ndarray, "lender pair"]:
        """Sum of the ranks of each pair over what it is lent, as (lender, unit, label)."""
        cell = lent[:, 1] * self.n_labels + lent[:, 2]
        start = self.indptr[cell]
        count = self.indptr[cell + 1] - start
        of = np.repeat(np.arange(len(cell)), count)
        at = np.arange(len(of)) - (np.cumsum(count) - count - start)[of]
        total = np.bincount(
            lent[of, 0] * self.n_pairs + self.pair[at], weights=self.rank[at], minlength=n_lenders * self.n_pairs
        )
        return total.astype(np.float64).reshape(n_lenders, self.n_pairs)


def _counts(lent: Int64[np.ndarray, "lent 3"], n_lenders: int, n_labels: int) -> Int64[np.ndarray, "lender label"]:
    counts = np.bincount(lent[:, 0] * n_labels + lent[:, 2], minlength=n_lenders * n_labels)
    return counts.astype(np.int64).reshape(n_lenders, n_labels)


def _ratio(
    total: Float64[np.ndarray, "permutation pair"], count: Float64[np.ndarray, "permutation pair"]
) -> Float64[np.ndarray, "permutation pair"]:
    result = np.full(total.shape, np.nan)
    np.divide(total, count, out=result, where=count > 0)
    return result
