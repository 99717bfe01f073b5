"""Rank sums of every held-out video under every annotation that it may be lent in a permutation.

Laying w's annotations over v's token grid, at the same seconds and the same fractions of the frame, is what keeps the
shared trends in time and place in the null. There are only as many (v, w) as the strata allow, so every permutation is
a sum of parts that are computed once, as products of sparse matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.inference import RankSums
from features.association.statistics import mid_rank_excess, rank_codes
from features.labels.labelling import Space, VideoLabels

Relabel = Callable[[int, int], dict[Space, VideoLabels]]
"""(v, w) -> labels that video w's annotations give to the units of video v."""


@dataclass(frozen=True, kw_only=True)
class RankedPairs:
    """The (latent, label) pairs of one space that are tested, with the held-out codes that they need."""

    space: Space
    codes: sparse.csr_array
    """[unit, latent] of all units of the videos that are permuted, one video after another."""
    start: Int64[np.ndarray, " video_and_end"]
    """First unit of each video."""
    column: Int64[np.ndarray, " pair"]
    """Column of `codes` of each pair."""
    label: Int64[np.ndarray, " pair"]
    """Label of each pair, as an index into the space's names."""
    n_labels: int


def sum_ranks(
    pairs: Sequence[RankedPairs], relabel: Relabel, strata: Sequence[Int64[np.ndarray, " _"]]
) -> dict[Space, RankSums]:
    """Compute the sums for all spaces, laying each video's annotations over each other video of its stratum once."""
    n_videos = sum(len(members) for members in strata)
    loan = np.full((n_videos, n_videos), -1, dtype=np.int64)
    n_loans = 0
    for members in strata:
        size = len(members)
        loan[np.ix_(members, members)] = n_loans + np.arange(size * size).reshape(size, size)
        n_loans += size * size
    excess, zero_rank = {}, {}
    for item in pairs:
        excess[item.space], zero_rank[item.space] = _rank_excess(item.codes)
    sums = {
        item.space: RankSums(
            loan=loan,
            positive_ranks=np.zeros((n_loans, len(item.label))),
            positives=np.zeros((n_loans, len(item.label))),
            negative_ranks=np.zeros((n_loans, len(item.label))),
            negatives=np.zeros((n_loans, len(item.label))),
        )
        for item in pairs
    }
    with tqdm(total=n_videos, unit="videos", desc="permutation") as bar:
        for members in strata:
            for video in members:
                lent = [relabel(int(video), int(other)) for other in members]
                rows = loan[video, members]
                for item in pairs:
                    own = slice(int(item.start[video]), int(item.start[video + 1]))
                    _add_video(
                        sums[item.space],
                        rows,
                        [labels[item.space] for labels in lent],
                        excess[item.space][own],
                        zero_rank[item.space],
                        item,
                    )
                bar.update()
    return sums


def _rank_excess(codes: sparse.csr_array) -> tuple[sparse.csr_array, Float64[np.ndarray, " latent"]]:
    ranked = rank_codes(codes)
    excess, zero_rank = mid_rank_excess(ranked)
    return sparse.csr_array((excess, (ranked.unit, ranked.column)), shape=codes.shape), zero_rank


def _add_video(
    sums: RankSums,
    rows: Int64[np.ndarray, " loan"],
    lent: Sequence[VideoLabels],
    excess: sparse.csr_array,
    zero_rank: Float64[np.ndarray, " latent"],
    item: RankedPairs,
) -> None:
    """Fill the rows of one video: ranks and counts of its positives and negatives under each lent annotation."""
    n_units, n_loans, n_labels = excess.shape[0], len(lent), item.n_labels
    positive = _join([labels.positive for labels in lent], n_units, n_labels)
    eligible = sparse.csr_array(np.stack([labels.eligible for labels in lent], axis=1).astype(np.float64))
    # negative = eligible and not touched, so its sums are those of the eligible less those of the eligible and touched.
    spoiled = _join(
        [_where(labels.touched, labels.eligible) for labels in lent],
        n_units,
        n_labels,
    )

    def ranks(units: sparse.csr_array) -> tuple[Float64[np.ndarray, "latent group"], Float64[np.ndarray, " group"]]:
        count = np.asarray(units.sum(axis=0), dtype=np.float64).reshape(-1)
        return (excess.T @ units).toarray() + zero_rank[:, None] * count, count

    positive_ranks, positives = ranks(positive)
    spoiled_ranks, spoiled_count = ranks(spoiled)
    eligible_ranks, eligible_count = ranks(eligible)
    group = np.arange(n_loans)[:, None] * n_labels + item.label[None, :]
    sums.positive_ranks[rows] = positive_ranks[item.column[None, :], group]
    sums.positives[rows] = positives[group]
    sums.negative_ranks[rows] = eligible_ranks[item.column].T - spoiled_ranks[item.column[None, :], group]
    sums.negatives[rows] = eligible_count[:, None] - spoiled_count[group]


def _where(entries: Int64[np.ndarray, "entry 2"], mask: Bool[np.ndarray, " unit"]) -> Int64[np.ndarray, "kept 2"]:
    return entries[mask[entries[:, 0]]]


def _join(parts: Sequence[Int64[np.ndarray, "_ 2"]], n_units: int, n_labels: int) -> sparse.csr_array:
    """Indicators [unit, loan * label] of the (unit, label) entries of each loan."""
    index = np.concatenate([part + np.array([0, i * n_labels]) for i, part in enumerate(parts)])
    shape = (n_units, len(parts) * n_labels)
    return sparse.csr_array((np.ones(len(index)), (index[:, 0], index[:, 1])), shape=shape)
