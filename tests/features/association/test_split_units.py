from __future__ import annotations

import numpy as np
import pytest

from features.association.split_units import SplitUnits
from features.labels.labelling import OBJECTS
from features.labels.unit_labels import Space
from tests.features.association.dense import FRAMES, dense_of, random_codes, random_corpus, units_and_entries


@pytest.mark.parametrize("space", [OBJECTS, FRAMES])
@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_activations_and_counts_are_those_of_dense_copies(space: Space, held_out: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    corpus = random_corpus(rng, equal=False)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    units, entries = units_and_entries(corpus, codes, space, held_out=held_out)
    dense = dense_of(corpus, codes, space, held_out=held_out)
    np.testing.assert_array_equal(entries.toarray(), dense.activations)
    assert entries.has_sorted_indices
    np.testing.assert_array_equal(units.video, dense.video)
    for video in range(units.n_videos):
        own = dense.video == video
        np.testing.assert_array_equal(units.n_positive[video], dense.positive[own].sum(axis=0))
        np.testing.assert_array_equal(units.n_negative[video], dense.negative[own].sum(axis=0))
        assert (np.flatnonzero(own) == np.arange(units.start[video], units.start[video + 1])).all()
    np.testing.assert_array_equal(units.concerned, (dense.positive | dense.negative).any(axis=1) | units.concerned)


def test_spaces_of_one_level_share_its_units() -> None:
    corpus = random_corpus(np.random.default_rng(0))
    corpus.labels[Space("sound", "token")] = corpus.labels[OBJECTS]  # type: ignore[index]
    first, _, third = SplitUnits.of_split(corpus, held_out=True)
    assert first.level is third.level
