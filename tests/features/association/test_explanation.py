from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import features.association.explanation
from features.association.explanation import N_GROUPS, Explanation, explain, jackknife_error
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS, TIMES
from features.labels.regions import RegionLabels
from tests.features.association.dense import by_unit
from tests.features.conftest import BALL, CLAP, N_T, SIDE, MemoryCodes, PlantedVideo, records_of

UNKNOWN = 7
"""A video of which nothing is annotated."""


@pytest.fixture(scope="module")
def corpus(planted: list[PlantedVideo]) -> Corpus:
    known = {item.video.video_id: item.video for index, item in enumerate(planted) if index != UNKNOWN}
    return build_corpus(records_of(planted), known, min_videos=5)


@pytest.fixture(scope="module")
def codes(planted: list[PlantedVideo]) -> MemoryCodes:
    return MemoryCodes(sparse.csr_array(np.concatenate([item.activations for item in planted])))


@pytest.fixture(scope="module")
def found(codes: MemoryCodes, corpus: Corpus) -> Explanation:
    return explain(codes, corpus)


def dense_labels(corpus: Corpus) -> np.ndarray:
    """[token, label] of 0 and 1, a frame's labels at all of its tokens."""
    parts = []
    for space, labels in corpus.labels.items():
        values = labels.positive.toarray().astype(np.float64)
        parts.append(np.repeat(values, SIDE * SIDE, axis=0) if space.level == "frame" else values)
    return np.concatenate(parts, axis=1)


def tokens_of(videos: np.ndarray) -> np.ndarray:
    """Tokens of some videos."""
    size = N_T * SIDE * SIDE
    return np.concatenate([np.arange(video * size, (video + 1) * size) for video in videos])


def plain_correlations(codes: MemoryCodes, corpus: Corpus, videos: np.ndarray) -> np.ndarray:
    """Pearson correlations of dense columns; 0 where one never varies."""
    tokens = tokens_of(videos)
    activations, labels = (
        codes.rows(0, codes.n_tokens).toarray()[tokens].astype(np.float64),
        dense_labels(corpus)[tokens],
    )
    result = np.zeros((activations.shape[1], labels.shape[1]))
    for latent, activation in enumerate(activations.T):
        for label, value in enumerate(labels.T):
            if activation.std() > 0 and value.std() > 0:
                result[latent, label] = np.corrcoef(activation, value)[0, 1]
    return result


def annotated(corpus: Corpus, *, held_out: bool) -> np.ndarray:
    return np.flatnonzero((corpus.held_out == held_out) & corpus.annotated)


def test_correlations_are_those_of_dense_columns_over_annotated_videos(
    found: Explanation, codes: MemoryCodes, corpus: Corpus
) -> None:
    assert not corpus.annotated[UNKNOWN]
    for values, held_out in ((found.train, False), (found.held_out, True)):
        expected = plain_correlations(codes, corpus, annotated(corpus, held_out=held_out))
        np.testing.assert_allclose(values, expected, atol=1e-9)


def test_errors_are_those_of_leaving_out_groups_of_videos(
    found: Explanation, codes: MemoryCodes, corpus: Corpus
) -> None:
    held = annotated(corpus, held_out=True)
    left_out = np.stack(
        [plain_correlations(codes, corpus, held[np.arange(len(held)) % N_GROUPS != group]) for group in range(N_GROUPS)]
    )
    top = found.train.argmax(axis=1)
    own = left_out[:, np.arange(len(top)), top]
    np.testing.assert_allclose(found.top_error, jackknife_error(own), atol=1e-9)
    np.testing.assert_allclose(found.lead_error, jackknife_error(own[:, :, None] - left_out), atol=1e-9)


def test_the_map_of_place_and_time_is_the_mean_over_train_videos(
    found: Explanation, codes: MemoryCodes, corpus: Corpus
) -> None:
    shape = (-1, N_T * SIDE * SIDE, codes.d_sae)
    activations = codes.rows(0, codes.n_tokens).toarray().astype(np.float64).reshape(shape)
    expected = activations[annotated(corpus, held_out=False)].mean(axis=0)
    held = activations[annotated(corpus, held_out=True)]
    for latent in (BALL, CLAP):
        pair = np.tile(expected[:, latent], len(held)), held[:, :, latent].reshape(-1)
        assert found.place_time[latent] == pytest.approx(np.corrcoef(*pair)[0, 1])


def test_a_latent_that_fires_by_the_clock_is_explained_by_place_and_time(corpus: Corpus) -> None:
    # One latent fires at all tokens of the last step, another at one patch of it.
    clock = np.zeros((len(corpus.records), N_T, SIDE * SIDE, 2))
    clock[:, -1, :, 0] = 1.0
    clock[:, -1, 3, 1] = 1.0
    found = explain(MemoryCodes(sparse.csr_array(clock.reshape(-1, 2))), corpus)
    np.testing.assert_allclose(found.place_time, 1.0)
    last = corpus.first_labels()[TIMES] + corpus.labels[TIMES].names.index("time step 4 of 4")
    np.testing.assert_allclose(found.held_out[0, last], 1.0)
    # One of 16 tokens: the correlation of a share of 1/64 with one of 1/4 is sqrt((1/63) / (1/3)).
    np.testing.assert_allclose(found.held_out[1, last], np.sqrt(3 / 63))


def test_nothing_depends_on_how_many_latents_are_explained_at_once(
    codes: MemoryCodes, corpus: Corpus, found: Explanation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features.association.explanation, "MAX_NONZEROS", 500)
    again = explain(codes, corpus)
    for name in ("train", "held_out", "place_time", "top_error", "lead_error"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_labels_by_region_explain_what_those_of_each_token_do(
    codes: MemoryCodes, corpus: Corpus, found: Explanation
) -> None:
    of_tokens = {space for space, labels in corpus.labels.items() if isinstance(labels, RegionLabels)}
    assert OBJECTS in of_tokens
    labels = {space: by_unit(labels) if space in of_tokens else labels for space, labels in corpus.labels.items()}
    again = explain(codes, replace(corpus, labels=labels))
    for name in ("train", "held_out", "place_time", "top_error", "lead_error"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_without_labels_or_held_out_videos_nothing_is_explained(codes: MemoryCodes, corpus: Corpus) -> None:
    nothing = explain(codes, replace(corpus, labels={}))
    assert nothing.train.shape == (codes.d_sae, 0)
    alone = explain(codes, replace(corpus, held_out=np.zeros(len(corpus.records), dtype=bool)))
    assert alone.train[BALL, corpus.labels[OBJECTS].names.index("red ball")] > 0.9
    assert not alone.held_out.any()
    assert not alone.place_time.any()


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).random(12)
    left_out = (values.sum() - values) / 11
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(12))
