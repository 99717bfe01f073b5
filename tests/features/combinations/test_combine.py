"""Planted combinations are found, what follows one label alone has none, and every number is that of dense arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from features.association.explanation import N_GROUPS, groups_of_videos
from features.combinations.combine import COMBINATIONS, combine, gain_p_value
from features.combinations.formulas import Formula, Term
from features.combinations.search import search
from features.combinations.tokens import ActiveTokens, LabelledTokens
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS
from tests.features.conftest import N_T, SIDE, MemoryCodes, PlantedVideo, plant_videos, records_of

NAMES = ("red ball", "blue cube", "clapping", "upper half of the frame", "corner of the frame")
Rule = Callable[..., np.ndarray]
RULES: dict[str, tuple[int, Rule]] = {
    "red ball AND upper half of the frame": (2, lambda ball, _, __, upper, ___: ball & upper),
    "red ball AND NOT clapping": (2, lambda ball, _, clap, *__: ball & ~clap),
    "corner of the frame OR red ball": (2, lambda ball, _, __, ___, corner: corner | ball),
    "red ball AND upper half of the frame AND NOT clapping": (3, lambda ball, _, clap, upper, __: ball & upper & ~clap),
}
"""Number of labels, and where each rule holds."""


@pytest.fixture(scope="module")
def videos() -> list[PlantedVideo]:
    return plant_videos(60)


def corpus_of(videos: Sequence[PlantedVideo]) -> Corpus:
    return build_corpus(records_of(videos), {item.video.video_id: item.video for item in videos}, min_videos=5)


def truths(corpus: Corpus) -> list[np.ndarray]:
    """The tokens that have each of `NAMES`."""
    columns = []
    for name in NAMES:
        place = next(label for label in corpus.all_labels() if corpus.name(label) == name)
        own = corpus.labels[place.space].positive[:, [place.column]].toarray().reshape(-1)
        columns.append(np.repeat(own, SIDE * SIDE) if place.space.level == "frame" else own)
    return columns


def noisy(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A latent that fires at most of these tokens, by different strengths, and at a few others."""
    fires = (truth & (rng.random(len(truth)) < 0.85)) | (rng.random(len(truth)) < 0.002)
    return np.where(fires, 0.5 + rng.random(len(truth)), 0.0)


def codes_of(columns: Sequence[np.ndarray]) -> MemoryCodes:
    return MemoryCodes(sparse.csr_array(np.stack(columns, axis=1)))


def test_planted_combinations_are_found(videos: list[PlantedVideo]) -> None:
    corpus, rng = corpus_of(videos), np.random.default_rng(0)
    codes = codes_of([noisy(rule(*truths(corpus)), rng) for _, rule in RULES.values()])
    table = combine(codes, corpus, depth=3, fdr=0.05)
    for latent, (text, (depth, rule)) in enumerate(RULES.items()):
        row = table[(table["latent"] == latent) & (table["depth"] == depth)].iloc[0]
        assert row["beats_parts"], text
        assert row["gain_low"] > 0
        assert row["correlation"] > 0.7
        # Equal to the planted one on held-out videos; labels that say the same may stand for each other.
        held = np.repeat(corpus.held_out, N_T * SIDE * SIDE)
        assert row["n_tokens"] == int((rule(*truths(corpus)) & held).sum()), row["combination"]


def test_what_follows_one_label_has_no_combination() -> None:
    n_rows = n_beating = 0
    for seed in range(3):
        corpus, rng = corpus_of(plant_videos(60, seed=seed)), np.random.default_rng(seed)
        ball, cube, clap, *_ = truths(corpus)
        columns = [noisy(truth, rng) for truth in (ball, cube, clap) for _ in range(5)]
        table = combine(codes_of(columns), corpus, depth=3, fdr=0.05)
        n_rows, n_beating = n_rows + len(table), n_beating + int(table["beats_parts"].sum())
    assert n_rows >= 80  # the search finds something on train for each
    assert n_beating == 0


def test_a_latent_that_no_label_says_anything_about_has_no_row(videos: list[PlantedVideo]) -> None:
    corpus, rng = corpus_of(videos), np.random.default_rng(0)
    nothing = np.zeros(60 * N_T * SIDE * SIDE)
    anywhere = np.where(rng.random(len(nothing)) < 0.05, 1.0, 0.0)
    table = combine(codes_of([nothing, anywhere]), corpus, depth=3, fdr=0.05)
    assert len(table) == 0
    assert set(table.columns) == set(COMBINATIONS.names)


def dense_of(tokens: LabelledTokens) -> np.ndarray:
    return tokens.rows.toarray().astype(bool)


def test_every_number_is_that_of_dense_arrays(videos: list[PlantedVideo]) -> None:
    corpus, rng = corpus_of(videos), np.random.default_rng(1)
    latent = noisy(RULES["red ball AND NOT clapping"][1](*truths(corpus)), rng).astype(np.float32).astype(np.float64)
    row = combine(codes_of([latent]), corpus, depth=2, fdr=0.05).iloc[0]
    held = np.repeat(corpus.held_out, N_T * SIDE * SIDE)
    tokens = LabelledTokens(corpus, held_out=True)
    labels = [corpus.name(label) for label in corpus.all_labels()]
    first, second = (dense_of(tokens)[:, labels.index(name)] for name in row["labels"])
    whole = first & ~second if " AND NOT " in row["combination"] else first & second
    own = latent[held]
    correlation = np.corrcoef(own, whole)[0, 1]
    parts = [np.corrcoef(own, part)[0, 1] for part in (first, ~second)]
    assert row["correlation"] == pytest.approx(correlation, abs=1e-9)
    assert row["best_part_correlation"] == pytest.approx(max(parts), abs=1e-9)
    assert row["n_tokens"] == whole.sum()
    assert row["n_tried"] == 2 * len(labels) + 4 * 5 * len(labels)

    groups = np.repeat(groups_of_videos(corpus), N_T * SIDE * SIDE)[held]
    part = first if parts[0] >= parts[1] else ~second
    left_out = [
        np.corrcoef(own[groups != g], whole[groups != g])[0, 1] - np.corrcoef(own[groups != g], part[groups != g])[0, 1]
        for g in range(1, N_GROUPS + 1)
    ]
    error = np.sqrt((N_GROUPS - 1) / N_GROUPS * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    assert row["gain_high"] - row["gain"] == pytest.approx(2.2621571628 * error)  # t of 9 degrees of freedom at 97.5 %
    assert row["p_value"] == pytest.approx(stats.t.sf(row["gain"] / error, 9))


def test_the_best_pair_on_train_is_that_of_all_pairs(videos: list[PlantedVideo]) -> None:
    corpus, rng = corpus_of(videos), np.random.default_rng(2)
    latent = noisy(RULES["red ball AND upper half of the frame"][1](*truths(corpus)), rng)
    tokens = LabelledTokens(corpus, held_out=False)
    codes = codes_of([latent]).by_latent(np.array([0]))
    active = ActiveTokens(tokens, codes.indices, codes.data)
    found = search(tokens, active, 2)[0]
    dense, own = dense_of(tokens), latent[tokens.place >= 0]
    single = np.array([np.corrcoef(own, column)[0, 1] if column.std() else 0.0 for column in dense.T])
    start = np.argsort(-np.concatenate([single, -single]), kind="stable")[:5]
    taken = {column.tobytes() for column in (*dense.T, *~dense.T)}
    best = 0.0
    for place in start:
        one = dense[:, place] if place < len(single) else ~dense[:, place - len(single)]
        for other in dense.T:
            for joined in (one & other, one & ~other, one | other, one | ~other):
                if joined.std() and joined.tobytes() not in taken:
                    best = max(best, float(np.corrcoef(own, joined)[0, 1]))
    assert found.correlation == pytest.approx(best, abs=1e-6)


def test_counts_are_those_of_dense_arrays(videos: list[PlantedVideo]) -> None:
    tokens = LabelledTokens(corpus_of(videos), held_out=False)
    dense = dense_of(tokens)
    for formula in (Formula((Term(0),)), Formula((Term(3, True),)), Formula((Term(0), Term(5, True)), ("OR",))):
        holds = formula.holds(lambda label: dense[:, label])
        n, n_with = tokens.counts_with(formula)
        assert n == holds.sum()
        np.testing.assert_array_equal(n_with, dense[holds].sum(axis=0))


def test_a_combination_is_no_label_by_another_name(videos: list[PlantedVideo]) -> None:
    """Where two labels together hold at the tokens of a third, that one is all there is."""
    corpus = corpus_of(videos)
    rng = np.random.default_rng(3)
    table = combine(codes_of([noisy(truths(corpus)[0], rng)]), corpus, depth=3, fdr=0.05)
    tokens = LabelledTokens(corpus, held_out=False)
    singles = {column.tobytes() for column in dense_of(tokens).T}
    names = [corpus.name(label) for label in corpus.all_labels()]
    for row in table.to_dict("records"):
        assert len(set(row["labels"])) == row["depth"]
        if row["combination"].count(" AND ") == row["depth"] - 1 and "NOT" not in row["combination"]:
            joined = np.logical_and.reduce([dense_of(tokens)[:, names.index(name)] for name in row["labels"]])
            assert joined.tobytes() not in singles


def test_a_gain_without_spread_is_as_sure_as_its_groups() -> None:
    assert gain_p_value(0.1, 0.0) == 0.5**N_GROUPS
    assert gain_p_value(0.0, 0.0) == 1.0
    assert gain_p_value(-0.1, 0.05) > 0.5


def test_without_labels_there_is_no_combination(videos: list[PlantedVideo]) -> None:
    corpus = build_corpus(records_of(videos), {}, min_videos=1)
    table = combine(codes_of([np.ones(60 * N_T * SIDE * SIDE)]), corpus, depth=3, fdr=0.05)
    assert isinstance(table, pd.DataFrame)
    assert len(table) == 0
    assert OBJECTS not in corpus.labels
