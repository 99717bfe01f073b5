from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import features.association.selection
from features.association.selection import PER_LABEL, Scores, score, score_all, select_pairs
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS
from tests.features.conftest import BALL, MemoryCodes, PlantedVideo, records_of


@pytest.fixture(scope="module")
def corpus(planted: list[PlantedVideo]) -> Corpus:
    return build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)


def test_scores_are_those_of_the_split(planted: list[PlantedVideo], corpus: Corpus) -> None:
    codes = np.concatenate([item.activations for item in planted]).astype(np.float32)
    codes[: 64 * 1] = 0  # the first video is held out, so only that split's score falls
    assert corpus.held_out[0]
    train = score(sparse.csr_array(codes), corpus, held_out=False, within=True)
    held = score(sparse.csr_array(codes), corpus, held_out=True, within=False)
    ball = corpus.labels[OBJECTS].names.index("red ball")
    assert train.auroc[BALL, ball] == 1.0
    assert train.within_z[BALL, ball] == np.inf
    # Four of the positives lost their activation and tie with all negatives.
    n = 4 * int(corpus.held_out.sum())
    assert held.auroc[BALL, ball] == pytest.approx(1 - 0.5 * 4 / n)
    assert np.isnan(held.within_z).all()


def test_scores_do_not_depend_on_how_many_latents_are_scored_at_once(
    planted: list[PlantedVideo], corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = sparse.csr_array(np.concatenate([item.activations for item in planted]))
    whole = score_all(MemoryCodes(matrix), corpus)
    monkeypatch.setattr(features.association.selection, "MAX_NONZEROS", 500)
    for parts, together in zip(score_all(MemoryCodes(matrix), corpus), whole, strict=True):
        np.testing.assert_array_equal(parts.auroc, together.auroc)
        np.testing.assert_array_equal(parts.within_z, together.within_z)


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
    score_all(codes, corpus)
    assert (codes.n_reads == 1).all()


def test_selection_takes_each_latents_best_label_and_each_asked_labels_best_candidates() -> None:
    # Label 0 is asked: all latents pass, the last best. Label 1 explains all latents best, label 2 next best.
    n = PER_LABEL + 2
    area = np.stack([np.linspace(0.6, 0.9, n), np.full(n, 0.99), np.full(n, 0.99)], axis=1)
    z = np.full((n, 3), 5.0)
    correlation = np.tile([0.2, 0.5, 0.4], (n, 1))
    correlation[0] = [0.0, 0.09, 0.05]  # nothing explains latent 0
    selection = select_pairs(Scores(auroc=area, within_z=z), correlation, np.array([True, False, False]))
    pairs = set(zip(selection.latent.tolist(), selection.label.tolist(), strict=True))
    assert pairs == {*((latent, 1) for latent in range(1, n)), *((latent, 0) for latent in range(2, n))}
    assert selection.top.tolist() == [-1, *([1] * (n - 1))]
    assert selection.runner_up.tolist() == [-1, *([2] * (n - 1))]


def test_a_label_needs_videos_that_agree_to_test_a_latent() -> None:
    scores = Scores(auroc=np.array([[0.9], [0.9], [0.4]]), within_z=np.array([[2.5], [1.5], [9.0]]))
    selection = select_pairs(scores, np.zeros((3, 1)), np.array([True]))
    assert (selection.latent.tolist(), selection.label.tolist()) == ([0], [0])


def test_latents_without_scores_are_not_selected() -> None:
    scores = Scores(auroc=np.array([[np.nan], [0.4]]), within_z=np.array([[np.nan], [9.0]]))
    selection = select_pairs(scores, np.zeros((2, 1)), np.array([True]))
    assert len(selection.latent) == 0
    assert selection.top.tolist() == selection.runner_up.tolist() == [-1, -1]
