from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import roc_auc_score

import features.association.label_scores
from features.association.inference import clustered_z
from features.association.label_scores import pooled_auroc, within_video_z
from features.labels.labelling import OBJECTS
from features.labels.unit_labels import Space
from tests.features.association.dense import FRAMES, Dense, dense_of, random_codes, random_corpus, units_and_entries
from tests.features.association.plain_statistics import auroc, rank_codes


def plain_auroc(dense: Dense, latent: int, label: int, units: np.ndarray) -> float:
    positive, negative = dense.positive[units, label], dense.negative[units, label]
    used = positive | negative
    if not positive.any() or not negative.any():
        return np.nan
    return float(roc_auc_score(positive[used], dense.activations[units][used, latent]))


@pytest.mark.parametrize("space", [OBJECTS, FRAMES])
@pytest.mark.parametrize("seed", range(8))
def test_aurocs_of_all_labels_equal_sklearn_on_dense_copies(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = random_corpus(rng, n_videos=9, equal=False)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    units, entries = units_and_entries(corpus, codes, space, held_out=True)
    dense = dense_of(corpus, codes, space, held_out=True)
    everything = np.arange(len(dense.video))
    column, of = (index.reshape(-1) for index in np.indices((codes.shape[1], units.n_labels)))
    pooled = pooled_auroc(units, entries)
    z = within_video_z(units, entries, column, of).reshape(pooled.shape)
    for latent in range(codes.shape[1]):
        for label in range(units.n_labels):
            np.testing.assert_allclose(
                pooled[latent, label], plain_auroc(dense, latent, label, everything), rtol=0, atol=1e-12
            )
            within = [
                plain_auroc(dense, latent, label, np.flatnonzero(dense.video == v)) for v in range(units.n_videos)
            ]
            np.testing.assert_allclose(z[latent, label], clustered_z(np.array([within]))[0], rtol=1e-7)


@pytest.mark.parametrize("most", [1, 40])
def test_pairs_do_not_depend_on_which_others_are_measured_with_them(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    corpus = random_corpus(rng, n_videos=12, n_labels=4)
    codes = random_codes(rng, corpus.records[-1].row_stop, n_latents=6)
    units, entries = units_and_entries(corpus, codes, OBJECTS, held_out=True)
    column, label = rng.integers(0, 6, 30), rng.integers(0, 4, 30)
    together = within_video_z(units, entries, column, label)
    monkeypatch.setattr(features.association.label_scores, "MAX_ENTRIES", most)
    np.testing.assert_array_equal(within_video_z(units, entries, column, label), together)


def test_aurocs_are_to_the_last_bit_those_of_one_label_at_a_time() -> None:
    rng = np.random.default_rng(3)
    corpus = random_corpus(rng, n_videos=20, n_labels=4)
    codes = random_codes(rng, corpus.records[-1].row_stop, n_latents=8)
    units, entries = units_and_entries(corpus, codes, OBJECTS, held_out=True)
    dense = dense_of(corpus, codes, OBJECTS, held_out=True)
    ranked = rank_codes(sparse.csr_array(dense.activations))
    pooled = pooled_auroc(units, entries)
    for label in range(units.n_labels):
        one = auroc(ranked, dense.positive[:, label], dense.negative[:, label])[:, 0]
        np.testing.assert_array_equal(pooled[:, label], one)


def test_no_latents_and_latents_that_never_fire() -> None:
    corpus = random_corpus(np.random.default_rng(0))
    none = np.zeros((corpus.records[-1].row_stop, 2), dtype=np.float32)
    units, entries = units_and_entries(corpus, none, OBJECTS, held_out=True)
    assert (pooled_auroc(units, entries) == 0.5).all()
    assert (within_video_z(units, entries, np.array([0, 1, 1]), np.array([2, 0, 1])) == 0.0).all()
    nothing = np.empty(0, dtype=np.int64)
    assert within_video_z(units, entries, nothing, nothing).shape == (0,)
    assert pooled_auroc(units, entries[:, :0]).shape == (0, 3)
