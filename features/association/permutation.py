"""The permutation test: whole videos are given each other's annotations, within strata.

The statistic of a (latent, label) is the mean rank of the label's positive units less that of its negative ones, which
is AUROC − ½ with these as the reference. It is a ratio of sums over videos, and is summed video by video: for the loans
that the permutations of one stage give a video, the ranks of what is positive and negative under each.

Time is linear in videos, in activations and in pairs: a video is under one other video's annotations per permutation.
Memory is that of one video and of the sums of the permutations of one stage. Most pairs are hopeless and stop early.

Source: Besag and Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78. Permutations are drawn until `h` of
them reach the observed statistic, or until there are B. Where the h-th is the n-th permutation, p = h / n; where only
g < h of B reach it, p = (g + 1) / (B + 1). Either way P(p ≤ a) ≤ a under the null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.loans import Loan
from features.division import ALONE, Division

Lend = Callable[[int, Int64[np.ndarray, " lender"]], Loan]
"""(borrower, lenders) -> the labels of the borrower's units under each lender's annotations."""
RanksOf = Callable[[int, Bool[np.ndarray, " latent"]], Mapping[str, sparse.csc_array]]
"""(video, wanted latents) -> ranks [unit, latent] of its units at each level; see `features.association.ranks`."""
FIRST_STAGE = 128
"""Permutations, with the observed order as the first, after which hopeless pairs are dropped for the first time."""
ROW_CELLS = 1 << 19
"""Sums [permutation, pair] that are added to at once."""
MAX_CELLS = 1 << 24
"""Sums [permutation, pair] that are held at once, of some ten numbers each at the most."""


@dataclass(frozen=True, kw_only=True)
class TestedPairs:
    """The (latent, label) pairs of one space that are tested."""

    __test__ = False  # pytest takes classes of this name for tests

    level: str
    """Level of the space's units."""
    n_units: int
    """Units of all videos."""
    latent: Int64[np.ndarray, " pair"]
    """Column of each pair's latent in the ranks."""
    label: Int64[np.ndarray, " pair"]
    """Label of each pair, as an index into the space's names."""
    n_labels: int
    lend: Lend

    def some(self, kept: Bool[np.ndarray, " pair"]) -> TestedPairs:
        """Some of the pairs."""
        return replace(self, latent=self.latent[kept], label=self.label[kept])


def enough_exceedances(n_permutations: int, fdr: float) -> int:
    """How many permutations must reach the observed statistic before a pair is given up.

    With that many, p is above `fdr` however the pair goes on, and so it is where the pair stops. Benjamini-Hochberg
    rejects no p-value above its rate, and asks of others only how many there are: no decision depends on stopping.
    """
    return math.floor(fdr * (n_permutations + 1)) + 1


def permutation_p_values(
    spaces: Sequence[TestedPairs],
    ranks_of: RanksOf,
    permutations: Int64[np.ndarray, "permutation video"],
    *,
    exceedances: int | None = None,
    division: Division = ALONE,
) -> list[Float64[np.ndarray, " _"]]:
    """One-sided p-values of the difference between the mean rank of positives and that of negatives.

    Args:
        spaces: what is tested.
        ranks_of: gives the ranks of a video's units.
        permutations: [b, v] is the video whose annotations video v gets in permutation b.
        exceedances: h, after which a pair stops; none stops where it is not given.
        division: the processes that share the videos; each gets the result.

    Returns:
        Of each space, one per pair; see the module. A permutation that leaves no positive or no negative reaches the
        observed statistic. Sums are of whole numbers and exact, so that the result depends neither on the stages nor on
        the processes nor on which pairs are tested together.
    """
    n_permutations, n_videos = permutations.shape
    h = n_permutations + 1 if exceedances is None else exceedances
    n_latents = max((int(pairs.latent.max(initial=-1)) + 1 for pairs in spaces), default=0)
    running = [_Running(pairs) for pairs in spaces]
    rows = np.vstack([np.arange(n_videos, dtype=np.int64), permutations])  # the first is what was observed
    done = 0
    while done < len(rows) and (n_alive := sum(len(space.alive) for space in running)):
        size = FIRST_STAGE if done == 0 else max(FIRST_STAGE, MAX_CELLS // n_alive)
        found = _statistics([space.left for space in running], ranks_of, rows[done : done + size], n_latents, division)
        for space, statistics in zip(running, found, strict=True):
            space.add(statistics, h)
        done += size
    for space in running:
        space.p_values[space.alive] = (1 + space.n_reached[space.alive]) / (1 + n_permutations)
    return [space.p_values for space in running]


class _Running:
    """The pairs of one space, and how far they are."""

    def __init__(self, pairs: TestedPairs) -> None:
        self.left = pairs
        """Pairs that go on."""
        self.alive = np.arange(len(pairs.label))
        self.n_reached = np.zeros(len(pairs.label), dtype=np.int64)
        self.p_values = np.full(len(pairs.label), np.nan)
        self._observed = np.empty(0)
        self._n_drawn = -1  # the first statistic is the observed one

    def add(self, statistics: Float64[np.ndarray, "permutation pair"], h: int) -> None:
        """Count what reaches the observed statistic, and stop the pairs that have h."""
        if self._n_drawn < 0:
            self._observed, statistics, self._n_drawn = statistics[0], statistics[1:], 0
        reached = ~(statistics < self._observed[self.alive] - 1e-12)  # the tolerance is for the division
        counts = self.n_reached[self.alive] + np.cumsum(reached, axis=0)
        self._n_drawn += len(statistics)
        if not len(statistics):
            return
        stopped = counts[-1] >= h
        place = (counts[:, stopped] >= h).argmax(axis=0)
        self.p_values[self.alive[stopped]] = h / (self._n_drawn - len(statistics) + 1 + place)
        self.n_reached[self.alive] = counts[-1]
        self.alive = self.alive[~stopped]
        self.left = self.left.some(~stopped)


def _statistics(
    spaces: Sequence[TestedPairs],
    ranks_of: RanksOf,
    permutations: Int64[np.ndarray, "permutation video"],
    n_latents: int,
    division: Division,
) -> list[Float64[np.ndarray, "_ _"]]:
    """The statistic [permutation, pair] of each space, summed over the videos of all processes."""
    sums = [_Sums(pairs, len(permutations)) for pairs in spaces]
    wanted = np.zeros(n_latents, dtype=bool)
    for pairs in spaces:
        wanted[pairs.latent] = True
    for video in tqdm(division.share(permutations.shape[1]), unit="videos", desc="permutation", leave=False):
        lenders, place = np.unique(permutations[:, video], return_inverse=True)
        ranks = ranks_of(video, wanted)
        for space in sums:
            if len(space.pairs.label):
                space.add(video, ranks[space.pairs.level], lenders, place)
    return [space.statistic(division) for space in sums]


class _Sums:
    """Ranks and numbers of positives and negatives under each permutation, for the pairs of one space."""

    def __init__(self, pairs: TestedPairs, n_permutations: int) -> None:
        self.pairs = pairs
        self._labels, self._label = np.unique(pairs.label, return_inverse=True)
        self._place = np.full(pairs.n_labels, -1, dtype=np.int64)
        self._place[self._labels] = np.arange(len(self._labels))
        shape, counts = (n_permutations, len(pairs.label)), (n_permutations, len(self._labels))
        self._positive, self._negative = np.zeros(shape), np.zeros(shape)
        self._n_positive, self._n_negative = np.zeros(counts), np.zeros(counts)
        self._latents, self._column = np.unique(pairs.latent, return_inverse=True)
        self._by_column = np.argsort(self._column, kind="stable")
        self._first = np.searchsorted(self._column[self._by_column], np.arange(len(self._latents) + 1))

    def add(
        self,
        video: int,
        ranks: sparse.csc_array,
        lenders: Int64[np.ndarray, " lender"],
        place: Int64[np.ndarray, " permutation"],
    ) -> None:
        """Add one video.

        Args:
            video: its rank among the permuted ones.
            ranks: [unit, latent] of its units.
            lenders: videos whose annotations it gets.
            place: which of these it gets in each permutation.
        """
        own = ranks if len(self._latents) == ranks.shape[1] else ranks[:, self._latents]
        loan = self.pairs.lend(video, lenders)
        listed = self._by_cell(own)
        (positive, n_positive), (spoiled, n_spoiled) = (
            self._summed(lent, loan, listed) for lent in (loan.positive, loan.spoiled)
        )
        eligible = own.T.astype(np.float64) @ loan.eligible.T.astype(np.float64)
        negative = np.subtract(eligible[self._column].T, spoiled, out=spoiled)
        n_negative = loan.eligible.sum(axis=1)[:, None] - n_spoiled
        # Few rows at a time, so that what is added stays in the processor's cache.
        rows = max(ROW_CELLS // max(len(self._label), 1), 1)
        for start in range(0, len(place), rows):
            some = slice(start, start + rows)
            self._positive[some] += positive[place[some]]
            self._negative[some] += negative[place[some]]
        self._n_positive += n_positive[place]
        self._n_negative += n_negative[place]

    def _by_cell(self, ranks: sparse.csc_array) -> sparse.csr_array:
        """The ranks of one video once for each pair of their latent [(unit, label), pair]."""
        n_labels = len(self._labels)
        column = np.repeat(np.arange(ranks.shape[1]), np.diff(ranks.indptr))
        first, count = self._first[column], np.diff(self._first)[column]
        entry = np.repeat(np.arange(ranks.nnz), count)
        pair = self._by_column[np.arange(len(entry)) - (np.cumsum(count) - count - first)[entry]]
        cell = ranks.indices[entry].astype(np.int64) * n_labels + self._label[pair]
        shape = (ranks.shape[0] * n_labels, len(self._label))
        return sparse.csr_array((ranks.data[entry].astype(np.float64), (cell, pair)), shape=shape)

    def _summed(
        self, lent: Int64[np.ndarray, "lent 3"], loan: Loan, listed: sparse.csr_array
    ) -> tuple[Float64[np.ndarray, "lender pair"], Int64[np.ndarray, "lender label"]]:
        """Sum of the ranks of each pair over what it is lent, and how many units each tested label is lent."""
        (n_lenders, n_units), n_labels = loan.eligible.shape, len(self._labels)
        lender, unit, label = lent[:, 0], lent[:, 1], self._place[lent[:, 2]]
        if n_labels < self.pairs.n_labels:
            kept = np.flatnonzero(label >= 0)
            lender, unit, label = lender[kept], unit[kept], label[kept]
        counts = np.bincount(lender * n_labels + label, minlength=n_lenders * n_labels).astype(np.int64)
        counts = counts.reshape(n_lenders, n_labels)
        # Lenders ascend, so that their entries lie in a row each.
        pointers = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts.sum(axis=1))])
        shape = (n_lenders, n_units * n_labels)
        cells = sparse.csr_array((np.ones(len(unit)), unit * n_labels + label, pointers), shape=shape)
        return (cells @ listed).toarray(), counts

    def statistic(self, division: Division) -> Float64[np.ndarray, "permutation pair"]:
        """Mean rank of positives less that of negatives, as a share of all units; NaN where there are none."""
        positive, negative, n_positive, n_negative = (
            division.total(part) for part in (self._positive, self._negative, self._n_positive, self._n_negative)
        )
        label = self._label
        difference = _ratio(positive, n_positive[:, label]) - _ratio(negative, n_negative[:, label])
        return difference / (2 * self.pairs.n_units)


def _ratio(
    total: Float64[np.ndarray, "permutation pair"], count: Float64[np.ndarray, "permutation pair"]
) -> Float64[np.ndarray, "permutation pair"]:
    result = np.full(total.shape, np.nan)
    np.divide(total, count, out=result, where=count > 0)
    return result
