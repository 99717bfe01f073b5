from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import features.association.selection
from features.association.label_scores import within_video_z
from features.association.pair_effects import pair_aurocs
from features.association.selection import PER_LABEL, best_latents, measure_pairs, score, score_some, select_pairs
from features.association.split_units import SplitUnits
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS
from tests.features.association.dense import random_codes, random_corpus
from tests.features.conftest import BALL, MemoryCodes, PlantedVideo, records_of


@pytest.fixture(scope="module")
def corpus(planted: list[PlantedVideo]) -> Corpus:
    return build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)


def test_scores_are_those_of_the_split(planted: list[PlantedVideo], corpus: Corpus) -> None:
    codes = np.concatenate([item.activations for item in planted]).astype(np.float32)
    codes[: 64 * 1] = 0  # the first video is held out, so only that split's score falls
    assert corpus.held_out[0]
    train, held = (SplitUnits.of_split(corpus, held_out=held_out) for held_out in (False, True))
    ball = corpus.first_labels()[OBJECTS] + corpus.labels[OBJECTS].names.index("red ball")
    assert score_some(sparse.csc_array(codes), train)[BALL, ball] == 1.0
    # Four of the positives lost their activation and tie with all negatives.
    n = 4 * int(corpus.held_out.sum())
    assert score_some(sparse.csc_array(codes), held)[BALL, ball] == pytest.approx(1 - 0.5 * 4 / n)


def test_nothing_depends_on_how_many_latents_are_scored_at_once(
    planted: list[PlantedVideo], corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = MemoryCodes(sparse.csr_array(np.concatenate([item.activations for item in planted])))
    units = SplitUnits.of_split(corpus, held_out=False)
    whole = score(codes, units)
    best = best_latents(codes, units, whole)
    assert len(best[0])
    monkeypatch.setattr(features.association.selection, "MAX_NONZEROS", 500)
    np.testing.assert_array_equal(score(codes, units), whole)
    np.testing.assert_array_equal(best_latents(codes, units, whole), best)


@pytest.mark.parametrize("first_tried", [1, 3, 16])
def test_the_best_latents_are_those_of_measuring_all(first_tried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.association.selection, "FIRST_TRIED", first_tried)
    monkeypatch.setattr(features.association.selection, "SCREEN_Z", 0.5)  # in random codes few videos agree
    rng = np.random.default_rng(1)
    corpus = random_corpus(rng, n_videos=60, n_labels=4)
    codes = random_codes(rng, corpus.records[-1].row_stop, n_latents=60)
    units = SplitUnits.of_split(corpus, held_out=False)
    auroc = score_some(sparse.csc_array(codes), units)
    expected: set[tuple[int, int]] = set()
    for label in range(auroc.shape[1]):
        space, column = divmod(label, 4)
        entries = units[space].entries(sparse.csc_array(codes))
        z = within_video_z(units[space], entries, np.arange(60), np.full(60, column))
        passing = sorted(
            (-auroc[latent, label], latent) for latent in range(60) if auroc[latent, label] > 0.5 and z[latent] >= 0.5
        )
        assert len(passing) > PER_LABEL
        expected |= {(latent, label) for _, latent in passing[:PER_LABEL]}
    latent, label = best_latents(MemoryCodes(sparse.csr_array(codes)), units, auroc)
    assert set(zip(latent.tolist(), label.tolist(), strict=True)) == expected
    assert len(latent) == PER_LABEL * auroc.shape[1]


def test_pairs_are_measured_in_the_order_that_is_asked_for() -> None:
    rng = np.random.default_rng(2)
    corpus = random_corpus(rng, n_videos=9, n_labels=3)
    codes = random_codes(rng, corpus.records[-1].row_stop, n_latents=7)
    units = SplitUnits.of_split(corpus, held_out=True)
    latent, label = rng.integers(0, 7, 25), rng.integers(0, 6, 25)
    found = measure_pairs(MemoryCodes(sparse.csr_array(codes)), units, latent, label, pair_aurocs)
    np.testing.assert_array_equal(found, score_some(sparse.csc_array(codes), units)[latent, label])


class OneColumnCodes(MemoryCodes):
    """Counts how often each latent is read, and reads no token's codes."""

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__(matrix)
        self.n_reads = np.zeros(matrix.shape[1], dtype=np.int64)

    def by_latent(self, latents: np.ndarray) -> sparse.csc_array:
        self.n_reads[latents] += 1
        return super().by_latent(latents)

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        raise AssertionError(f"tokens {start} to {stop} are read")


def test_every_latent_is_read_once(
    planted: list[PlantedVideo], corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = OneColumnCodes(sparse.csr_array(np.concatenate([item.activations for item in planted])))
    monkeypatch.setattr(features.association.selection, "MAX_NONZEROS", 500)
    score(codes, SplitUnits.of_split(corpus, held_out=False))
    assert (codes.n_reads == 1).all()


def test_selection_takes_each_latents_best_label_and_the_pairs_that_are_given() -> None:
    # Label 1 explains all latents best, label 2 next best.
    n = 7
    correlation = np.tile([0.2, 0.5, 0.4], (n, 1))
    correlation[0] = [0.0, 0.09, 0.05]  # nothing explains latent 0
    selection = select_pairs(correlation, np.array([2, 6, 6]), np.array([0, 0, 1]))
    pairs = list(zip(selection.latent.tolist(), selection.label.tolist(), strict=True))
    assert pairs == sorted({*((latent, 1) for latent in range(1, n)), (2, 0), (6, 0)})
    assert selection.top.tolist() == [-1, *([1] * (n - 1))]
    assert selection.runner_up.tolist() == [-1, *([2] * (n - 1))]


def test_a_label_needs_videos_that_agree_to_test_a_latent(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    corpus = random_corpus(rng, n_videos=12)
    units = [SplitUnits(corpus, OBJECTS, held_out=False)]
    codes = MemoryCodes(sparse.csr_array(random_codes(rng, corpus.records[-1].row_stop, n_latents=3)))
    z = {(0, 0): 2.5, (1, 0): 1.5, (2, 0): 9.0}
    auroc = np.array([[0.9, np.nan, 0.4], [0.9, np.nan, 0.4], [0.4, np.nan, 0.4]])

    def planned(_: SplitUnits, __: object, column: np.ndarray, label: np.ndarray) -> np.ndarray:
        return np.array([z[pair] for pair in zip(column.tolist(), label.tolist(), strict=True)])

    monkeypatch.setattr(features.association.selection, "within_video_z", planned)
    latent, label = best_latents(codes, units, auroc)
    assert (latent.tolist(), label.tolist()) == ([0], [0])


def test_latents_without_scores_are_not_selected() -> None:
    nothing = np.empty(0, dtype=np.int64)
    selection = select_pairs(np.zeros((2, 1)), nothing, nothing)
    assert len(selection.latent) == 0
    assert selection.top.tolist() == selection.runner_up.tolist() == [-1, -1]
