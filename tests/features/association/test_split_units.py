from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import sparse

from features.association.label_scores import pooled_auroc
from features.association.pair_effects import pair_effects
from features.association.split_units import PlaceUnits, SplitUnits
from features.labels.labelling import OBJECTS, PLACES
from features.labels.place_labels import PlaceLabels
from features.labels.unit_labels import Space, UnitLabels
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


def test_units_of_places_are_those_of_labels_that_are_kept_by_token() -> None:
    rng = np.random.default_rng(6)
    corpus = random_corpus(rng, n_videos=9, equal=False)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    cell = rng.integers(0, 5, corpus.records[-1].row_stop).astype(np.int32)
    places = PlaceLabels(("a", "b", "c"), rng.random((5, 3)) < 0.5, cell)
    plain = UnitLabels(
        names=places.names,
        positive=places.positive,
        touched=places.touched,
        hidden=places.hidden,
        eligible=places.eligible,
        background=places.background,
    )
    by_cell, by_token = (
        SplitUnits.of_split(replace(corpus, labels={PLACES: labels}), held_out=True)[0] for labels in (places, plain)
    )
    assert isinstance(by_cell, PlaceUnits)
    assert not isinstance(by_token, PlaceUnits)
    np.testing.assert_array_equal(by_cell.marks.toarray(), by_token.marks.toarray())
    for name in ("n_positive", "n_spoiled", "n_negative", "n_eligible", "n_positive_background", "n_hidden"):
        np.testing.assert_array_equal(getattr(by_cell, name), getattr(by_token, name), err_msg=name)
    entries = by_token.entries(sparse.csc_array(codes))
    np.testing.assert_array_equal(pooled_auroc(by_cell, entries), pooled_auroc(by_token, entries))
    column, label = (index.reshape(-1) for index in np.indices((codes.shape[1], 3)))
    for (first, ours), (second, theirs) in zip(
        pair_effects(by_cell, entries, column, label, None),
        pair_effects(by_token, entries, column, label, None),
        strict=True,
    ):
        assert first == second
        np.testing.assert_equal(asdict(ours), asdict(theirs))
