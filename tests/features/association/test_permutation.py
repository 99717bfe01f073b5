from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import kstest, norm, rankdata

import features.association.permutation
from features.association.inference import benjamini_hochberg, merge_strata, permute_within
from features.association.loans import Lender, Loan
from features.association.permutation import TestedPairs, enough_exceedances, permutation_p_values
from features.association.ranks import RankLevels, VideoRanks
from features.labels.labelling import OBJECTS
from tests.features.association.dense import FRAMES, dense_of, random_codes, random_corpus, units_and_entries
from tests.features.association.plain_statistics import auroc, rank_codes
from tests.features.conftest import MemoryCodes

Codes = np.ndarray


Ranks = Callable[[int, np.ndarray], dict[str, sparse.csc_array]]


def ranks_of(codes: np.ndarray, n_videos: int) -> Ranks:
    """Ranks of the units, which are divided evenly among the videos."""
    whole = sparse.csc_array(codes.astype(np.float32))
    latent = np.repeat(np.arange(codes.shape[1]), np.diff(whole.indptr))
    twice = RankLevels.of(whole).twice_ranks(latent, whole.data)
    rows = sparse.csr_array(sparse.csc_array((twice, whole.indices, whole.indptr), shape=whole.shape))
    size = len(codes) // n_videos
    parts = [{"token": sparse.csc_array(rows[size * v : size * (v + 1)])} for v in range(n_videos)]
    return lambda video, _: parts[video]


def all_pairs(codes: np.ndarray, positive: np.ndarray) -> TestedPairs:
    """Every latent with every label."""
    n_labels = positive.shape[-1]
    latent, label = np.divmod(np.arange(codes.shape[1] * n_labels), n_labels)
    return TestedPairs(
        level="token", n_units=len(codes), latent=latent, label=label, n_labels=n_labels, lend=lend(positive)
    )


def one_space(pairs: TestedPairs, codes: np.ndarray, draws: np.ndarray, exceedances: int | None = None) -> np.ndarray:
    (found,) = permutation_p_values([pairs], ranks_of(codes, draws.shape[1]), draws, exceedances=exceedances)
    return found


def lend(positive: np.ndarray) -> Callable[[int, np.ndarray], Loan]:
    """Loans of labels [video, unit, label]; with one grid for all, another's annotations are simply its labels.

    A unit is touched by nothing that it is not positive for, and eligible where it has a label.
    """

    def loan(borrower: int, lenders: np.ndarray) -> Loan:
        del borrower
        entries = np.argwhere(positive[lenders]).astype(np.int64).reshape(-1, 3)
        return Loan(eligible=np.asarray(positive[lenders].any(axis=-1)), positive=entries, spoiled=entries)

    return loan


def plain_p_values(codes: np.ndarray, labels: np.ndarray, negative: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """One permutation after the other, with ranks of dense activations.

    Args:
        codes: [video, unit, latent].
        labels: [video, unit, label], positive.
        negative: the same.
        draws: [permutation, video].
    """
    ranks = rankdata(codes.reshape(-1, codes.shape[-1]), axis=0).reshape(codes.shape) / codes[..., 0].size

    def difference(order: np.ndarray) -> np.ndarray:
        result = np.zeros((codes.shape[-1], labels.shape[-1]))
        for latent in range(codes.shape[-1]):
            for label in range(labels.shape[-1]):
                positive, other = labels[order][..., label], negative[order][..., label]
                if positive.any() and other.any():
                    result[latent, label] = ranks[positive, latent].mean() - ranks[other, latent].mean()
                else:
                    result[latent, label] = np.inf
        return result

    observed = difference(np.arange(len(codes)))
    reached = sum((difference(order) >= observed - 1e-9).astype(int) for order in draws)
    return np.asarray((1 + reached) / (1 + len(draws)))


@pytest.mark.parametrize("seed", range(4))
def test_p_values_equal_those_of_dense_ranks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = random_corpus(rng, n_videos=12)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    draws = permute_within([np.array([0, 2, 4, 6]), np.array([1, 3, 5, 7])], 8, 60, rng)
    records = [corpus.records[video] for video in corpus.split(held_out=True)]
    latents = np.array([0, 1, 3, 4])
    tested: list[TestedPairs] = []
    expected: list[np.ndarray] = []
    levels: dict[str, RankLevels] = {}
    for space in (OBJECTS, FRAMES):
        units, entries = units_and_entries(corpus, codes[:, latents], space, held_out=True)
        dense = dense_of(corpus, codes[:, latents], space, held_out=True)
        latent, label = (index.reshape(-1) for index in np.indices((len(latents), units.n_labels)))
        levels[space.level] = RankLevels.of(entries)
        tested.append(
            TestedPairs(
                level=space.level,
                n_units=units.n_units,
                latent=latent,
                label=label,
                n_labels=units.n_labels,
                lend=Lender(units, [record.grid for record in records]).loan,
            )
        )
        shape = (units.n_videos, -1)
        plain = plain_p_values(
            dense.activations.reshape(*shape, len(latents)),
            dense.positive.reshape(*shape, units.n_labels),
            dense.negative.reshape(*shape, units.n_labels),
            draws,
        )
        expected.append(plain.reshape(-1))
    ranks = VideoRanks(MemoryCodes(sparse.csr_array(codes)), records, latents, levels)
    for found, plain in zip(permutation_p_values(tested, ranks, draws), expected, strict=True):
        np.testing.assert_allclose(found, plain, rtol=1e-12)


ALL_SIX = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])


def three_videos() -> tuple[np.ndarray, np.ndarray]:
    """Three videos of three units; the latent fires at the unit v of video v, and there alone is label 0."""
    positive = np.zeros((3, 3, 2), dtype=bool)
    positive[np.arange(3), np.arange(3), 0] = True
    positive[..., 1] = ~positive[..., 0]
    return np.eye(3).reshape(9, 1), positive


def first_label(codes: np.ndarray, positive: np.ndarray, draws: np.ndarray, exceedances: int | None = None) -> float:
    pairs = all_pairs(codes, positive)
    return float(one_space(pairs.some(pairs.label == 0), codes, draws, exceedances)[0])


def test_p_value_counts_the_permutations_that_reach_the_observed_difference() -> None:
    # Under its own annotation all positives are active, with any other order one at most: the identity alone reaches.
    assert first_label(*three_videos(), ALL_SIX) == pytest.approx((1 + 1) / (6 + 1))


def test_p_value_is_one_when_annotations_are_interchangeable() -> None:
    codes, positive = three_videos()
    assert first_label(codes, positive[[0, 0, 0]], ALL_SIX) == 1.0


def test_a_permutation_that_leaves_no_positive_reaches_the_observed_difference() -> None:
    codes, positive = three_videos()
    own = lend(positive)

    def loan(borrower: int, lenders: np.ndarray) -> Loan:
        lent = own(borrower, lenders)
        kept = lenders[lent.positive[:, 0]] == borrower  # others' annotations do not reach this grid
        return replace(lent, positive=lent.positive[kept])

    pairs = all_pairs(codes, positive)
    # The identity and the two without a fixed point reach it. In the three others one positive is active, but so are
    # two negatives.
    p = one_space(replace(pairs.some(pairs.label == 0), lend=loan), codes, ALL_SIX)
    assert p[0] == pytest.approx((1 + 3) / (6 + 1))


def test_a_pair_stops_with_the_permutation_that_reaches_often_enough() -> None:
    # The identity (0) reaches, the cycle (3) does not. The second identity is the fourth permutation: p = 2 / 4.
    draws = ALL_SIX[[3, 0, 3, 0, 0, 0]]
    assert first_label(*three_videos(), draws, 2) == 2 / 4
    # Of six only four reach: with five wanted the pair does not stop, and p = (4 + 1) / (6 + 1).
    assert first_label(*three_videos(), draws, 5) == 5 / 7


def simulate(*, linked: bool, trend: bool, seed: int) -> tuple[Codes, np.ndarray]:
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
    return codes.reshape(-1, n_latents), positive


def p_values(codes: Codes, positive: np.ndarray, *, n: int = 199, exceedances: int | None = None) -> np.ndarray:
    draws = permute_within(merge_strata([0] * len(positive)), len(positive), n, np.random.default_rng(1))
    return one_space(all_pairs(codes, positive), codes, draws, exceedances)


def token_level_p_values(codes: Codes, positive: np.ndarray) -> np.ndarray:
    """What treating every unit as independent gives (Mann-Whitney with its normal approximation)."""
    flat = positive.reshape(-1, positive.shape[-1])
    ranked = rank_codes(sparse.csr_array(codes.astype(np.float32)))
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


def one_per_simulation(seed: int, *, exceedances: int | None) -> float:
    """The p-value of one pair without a link, in a world of its own."""
    codes, positive = simulate(linked=False, trend=True, seed=seed)
    pairs = all_pairs(codes[:, :1], positive)
    pairs = pairs.some(pairs.label == seed % positive.shape[-1])
    draws = permute_within(merge_strata([0] * len(positive)), len(positive), 199, np.random.default_rng(seed))
    return float(one_space(pairs, codes[:, :1], draws, exceedances)[0])


@pytest.mark.parametrize("exceedances", [None, enough_exceedances(199, 0.05)])
def test_p_values_of_independent_worlds_are_uniform(exceedances: int | None) -> None:
    p = np.array([one_per_simulation(seed, exceedances=exceedances) for seed in range(100)])
    # Where a label is nowhere or ranks tie, permutations count as reaching: p-values may be larger than uniform ones.
    assert kstest(p, "uniform", alternative="greater").pvalue > 0.01
    assert kstest(p, "uniform").pvalue > 0.001


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.01, 0.05, 0.2]))
def test_stopping_early_changes_no_decision(seed: int, trend: bool, fdr: float) -> None:
    codes, positive = simulate(linked=True, trend=trend, seed=seed)
    full = p_values(codes, positive)
    early = p_values(codes, positive, exceedances=enough_exceedances(199, fdr))
    kept = full <= fdr
    np.testing.assert_array_equal(early[kept], full[kept])
    assert (early[~kept] > fdr).all()
    np.testing.assert_array_equal(benjamini_hochberg(early) < fdr, benjamini_hochberg(full) < fdr)


def test_p_values_depend_neither_on_stages_nor_on_which_pairs_are_tested_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes, positive = simulate(linked=True, trend=True, seed=0)
    h = enough_exceedances(199, 0.05)
    whole = p_values(codes, positive, exceedances=h)
    monkeypatch.setattr(features.association.permutation, "FIRST_STAGE", 7)
    monkeypatch.setattr(features.association.permutation, "MAX_CELLS", 500)
    np.testing.assert_array_equal(p_values(codes, positive, exceedances=h), whole)
    pairs = all_pairs(codes, positive)
    draws = permute_within(merge_strata([0] * len(positive)), len(positive), 199, np.random.default_rng(1))
    for first in range(0, len(whole), 50):
        own = (np.arange(len(whole)) >= first) & (np.arange(len(whole)) < first + 50)
        found = one_space(pairs.some(own), codes, draws, h)
        np.testing.assert_array_equal(found, whole[own])
