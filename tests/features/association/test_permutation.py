from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import norm

from features.association.inference import merge_strata, permutation_p_values, permute_within
from features.association.permutation import RankedPairs, sum_ranks
from features.association.statistics import auroc, mid_rank_excess, rank_codes
from features.labels.labelling import OBJECTS, VideoLabels


def entries(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).astype(np.int64).reshape(-1, 2)


def as_labels(positive: np.ndarray) -> VideoLabels:
    """Labels [unit, label] that no unit is touched by without being positive; every labelled unit is eligible."""
    return VideoLabels(
        n_units=len(positive),
        positive=entries(positive),
        touched=entries(positive),
        hidden=np.empty((0, 2), dtype=np.int64),
        eligible=positive.any(axis=1),
        background=np.zeros(len(positive), dtype=bool),
    )


def all_pairs(codes: np.ndarray, n_videos: int, n_labels: int) -> RankedPairs:
    """Every latent with every label; the units are divided evenly among the videos."""
    n_units, n_latents = codes.shape
    column, label = np.divmod(np.arange(n_latents * n_labels), n_labels)
    return RankedPairs(
        space=OBJECTS,
        codes=sparse.csr_array(codes.astype(np.float32)),
        start=np.arange(n_videos + 1) * (n_units // n_videos),
        column=column,
        label=label,
        n_labels=n_labels,
    )


def test_sums_equal_those_of_dense_ranks() -> None:
    rng = np.random.default_rng(0)
    n_videos, n_units, n_labels = 5, 12, 3
    codes = rng.random((n_videos * n_units, 4)) * (rng.random((n_videos * n_units, 4)) < 0.3)
    kinds = rng.integers(0, n_labels + 1, size=(n_videos, n_videos, n_units))
    positive = kinds[..., None] == np.arange(n_labels)  # [video, other, unit, label]
    strata = [np.array([0, 2, 4]), np.array([1, 3])]
    pairs = all_pairs(codes, n_videos, n_labels)
    sums = sum_ranks([pairs], lambda v, w: {OBJECTS: as_labels(positive[v, w])}, strata)[OBJECTS]

    ranked = rank_codes(pairs.codes)
    excess, zero_rank = mid_rank_excess(ranked)
    ranks = np.tile(zero_rank, (len(codes), 1))
    ranks[ranked.unit, ranked.column] += excess
    for video in range(n_videos):
        own = ranks[video * n_units : (video + 1) * n_units]
        for other in range(n_videos):
            loan = sums.loan[video, other]
            assert (loan >= 0) == any({video, other} <= set(members.tolist()) for members in strata)
            if loan < 0:
                continue
            mask = positive[video, other]
            negative = mask.any(axis=1, keepdims=True) & ~mask
            for pair, (latent, label) in enumerate(zip(pairs.column, pairs.label, strict=True)):
                assert sums.positive_ranks[loan, pair] == pytest.approx(own[mask[:, label], latent].sum())
                assert sums.negative_ranks[loan, pair] == pytest.approx(own[negative[:, label], latent].sum())
                assert sums.positives[loan, pair] == mask[:, label].sum()
                assert sums.negatives[loan, pair] == negative[:, label].sum()


def simulate(*, linked: bool, trend: bool, seed: int) -> tuple[RankedPairs, np.ndarray]:
    """Videos whose units cluster: each has its own rates of latents and of labels, which may also rise with time."""
    rng = np.random.default_rng(seed)
    n_videos, n_t, n_patches, n_latents, n_labels = 40, 6, 16, 60, 4
    time = np.repeat(np.linspace(0, 1, n_t), n_patches) if trend else np.full(n_t * n_patches, 0.5)
    shape = (n_videos, n_t * n_patches)
    rates = rng.gamma(0.5, 0.4, size=(n_videos, 1, n_latents)) * time[None, :, None]
    codes = rng.exponential(size=(*shape, n_latents)) * (rng.random((*shape, n_latents)) < rates)
    weights = rng.gamma(0.15, size=(n_videos, 1, n_labels)) + 0.01
    weights = weights * np.where(np.arange(n_labels) % 2, time[:, None], 1 - 0.9 * time[:, None])[None]
    cumulative = np.cumsum(weights / weights.sum(axis=-1, keepdims=True), axis=-1)
    kind = (rng.random((*shape, 1)) > cumulative).sum(axis=-1).clip(max=n_labels - 1)
    positive = kind[..., None] == np.arange(n_labels)
    if linked:
        codes[..., :n_labels] += positive * (rng.random(positive.shape) < 0.3)
    return all_pairs(codes.reshape(-1, n_latents), n_videos, n_labels), positive


def p_values(pairs: RankedPairs, positive: np.ndarray) -> np.ndarray:
    strata = merge_strata([0] * len(positive))
    labels = [as_labels(own) for own in positive]
    # With one grid for all, another's annotations are simply its labels.
    sums = sum_ranks([pairs], lambda _, w: {OBJECTS: labels[w]}, strata)[OBJECTS]
    return permutation_p_values(sums, permute_within(strata, len(positive), 199, np.random.default_rng(1)))


def token_level_p_values(pairs: RankedPairs, positive: np.ndarray) -> np.ndarray:
    """What treating every unit as independent gives (Mann-Whitney with its normal approximation)."""
    flat = positive.reshape(-1, positive.shape[-1])
    ranked = rank_codes(pairs.codes)
    p = np.empty((ranked.n_latents, flat.shape[1]))
    for label in range(flat.shape[1]):
        n, m = flat[:, label].sum(), (~flat[:, label]).sum()
        spread = np.sqrt((n + m + 1) / (12 * n * m))
        p[:, label] = norm.sf((auroc(ranked, flat[:, label], ~flat[:, label])[:, 0] - 0.5) / spread)
    return p.reshape(-1)


@pytest.mark.parametrize("trend", [False, True])
def test_without_a_link_p_values_are_small_as_often_as_they_should(trend: bool) -> None:
    simulated = [simulate(linked=False, trend=trend, seed=seed) for seed in range(4)]
    p = np.concatenate([p_values(*case) for case in simulated])
    naive = np.concatenate([token_level_p_values(*case) for case in simulated])
    assert len(p) == 960
    assert 0.02 < (p <= 0.05).mean() < 0.08
    # The simulation would fool a test that takes units for independent.
    assert (naive <= 0.05).mean() > 0.1


def test_a_link_is_found_through_the_trend() -> None:
    pairs, positive = simulate(linked=True, trend=True, seed=0)
    p = p_values(pairs, positive).reshape(-1, positive.shape[-1])
    assert (np.diag(p) == 1 / 200).all()
