from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import sparse

from features.association.label_scores import pooled_auroc, within_video_z
from features.association.pair_effects import pair_effects
from features.association.split_units import PlaceUnits, SplitUnits
from features.labels.labelling import OBJECTS, PARTS, PLACES
from features.labels.place_labels import PlaceLabels
from features.labels.regions import RegionLabels
from features.labels.unit_labels import Space
from tests.features.association.dense import (
    FRAMES,
    by_unit,
    dense_of,
    random_codes,
    random_corpus,
    random_labels,
    random_regions,
    units_and_entries,
)


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


@pytest.mark.parametrize("kind", ["place", "object"])
def test_units_that_share_rows_are_those_of_labels_that_are_kept_by_token(kind: str) -> None:
    rng = np.random.default_rng(6)
    corpus = random_corpus(rng, n_videos=9, equal=False)
    codes = random_codes(rng, corpus.records[-1].row_stop)
    if kind == "place":
        cell = rng.integers(0, 5, corpus.records[-1].row_stop).astype(np.int32)
        space, shared = PLACES, PlaceLabels(("a", "b", "c"), rng.random((5, 3)) < 0.5, cell)
    else:
        space, shared = OBJECTS, random_regions(rng, list(corpus.records), 3)
    by_row, by_token = (
        SplitUnits.of_split(replace(corpus, labels={space: labels}), held_out=True)[0]
        for labels in (shared, by_unit(shared))
    )
    assert isinstance(by_row, PlaceUnits) == (kind == "place")
    assert not isinstance(by_token, PlaceUnits)
    assert (by_token.row == np.arange(by_token.n_units)).all()
    for name in ("marks", "eligible", "background", "concerned"):
        ours, theirs = getattr(by_row, name)[by_row.row], getattr(by_token, name)
        if name == "marks":
            ours, theirs = ours.toarray(), theirs.toarray()
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
    counts = ("n_units", "n_positive", "n_spoiled", "n_negative", "n_eligible", "n_background")
    for name in (*counts, "n_positive_background", "n_hidden"):
        np.testing.assert_array_equal(getattr(by_row, name), getattr(by_token, name), err_msg=name)
    entries = by_token.entries(sparse.csc_array(codes))
    np.testing.assert_array_equal(pooled_auroc(by_row, entries), pooled_auroc(by_token, entries))
    column, label = (index.reshape(-1) for index in np.indices((codes.shape[1], 3)))
    np.testing.assert_array_equal(
        within_video_z(by_row, entries, column, label), within_video_z(by_token, entries, column, label)
    )
    for (first, ours), (second, theirs) in zip(
        pair_effects(by_row, entries, column, label, None),
        pair_effects(by_token, entries, column, label, None),
        strict=True,
    ):
        assert first == second
        np.testing.assert_equal(asdict(ours), asdict(theirs))


def test_spaces_whose_tokens_share_regions_share_the_rows_of_a_split() -> None:
    rng = np.random.default_rng(3)
    corpus = random_corpus(rng)
    first = random_regions(rng, list(corpus.records), 2)
    second = RegionLabels(random_labels(rng, int(first.region.max()) + 1, 3), first.region)
    corpus = replace(corpus, labels={OBJECTS: first, PARTS: second, FRAMES: corpus.labels[FRAMES]})
    objects, parts, frames = SplitUnits.of_split(corpus, held_out=True)
    assert objects.row is parts.row
    assert frames.row.tolist() == list(range(frames.n_units))
