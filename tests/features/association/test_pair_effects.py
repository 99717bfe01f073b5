from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from features.association.pair_effects import pair_effects
from features.labels.labelling import OBJECTS
from features.labels.unit_labels import Space
from tests.features.association.dense import FRAMES, dense_of, random_codes, random_corpus, units_and_entries
from tests.features.association.plain_statistics import (
    auroc,
    average_precision,
    best_threshold,
    f1_score,
    rank_codes,
    video_wins,
)


@pytest.mark.parametrize("space", [OBJECTS, FRAMES])
@pytest.mark.parametrize("seed", range(6))
def test_effects_are_those_of_dense_activations(space: Space, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = random_corpus(rng, n_videos=8, equal=False)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    units, entries = units_and_entries(corpus, codes, space, held_out=True)
    dense = dense_of(corpus, codes, space, held_out=True)
    column, label = (index.reshape(-1) for index in np.indices((codes.shape[1], units.n_labels)))
    found = dict(pair_effects(units, entries, column, label, None))
    again = dict(pair_effects(units, entries, column, label, np.full(len(label), 1.0)))
    assert sorted(found) == list(range(len(label)))
    ranked, by_video = (rank_codes(sparse.csr_array(dense.activations), group) for group in (None, dense.video))
    for pair, effect in found.items():
        positive, negative = dense.positive[:, label[pair]], dense.negative[:, label[pair]]
        own = dense.activations[:, column[pair]].astype(np.float64)
        expected = {
            "auroc": auroc(ranked, positive, negative)[column[pair], 0],
            "auroc_background": auroc(ranked, positive, dense.background & ~positive)[column[pair], 0],
            "precision": average_precision(ranked, positive, negative)[column[pair], 0],
            "threshold": best_threshold(own, positive, negative),
            "f1": f1_score(own, positive, negative, effect.threshold),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(effect, name), value, rtol=1e-12, err_msg=name)
        assert again[pair].threshold == 1.0
        np.testing.assert_allclose(again[pair].f1, f1_score(own, positive, negative, 1.0))
        within = auroc(by_video, positive, negative)[column[pair]]
        np.testing.assert_array_equal(effect.within[: len(within)], within)
        used = positive | negative
        wins = video_wins(own[used], positive[used], negative[used], dense.video[used], units.n_videos)
        np.testing.assert_array_equal(effect.positive_wins, wins.sum(axis=1))
        np.testing.assert_array_equal(effect.negative_losses, wins.sum(axis=0))
