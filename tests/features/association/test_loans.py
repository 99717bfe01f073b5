from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from collect.data.perception_test import Video
from collect.tokens.grid import TokenGrid
from features.association.loans import Lender, Loan
from features.association.split_units import POSITIVE, SPOILED, SplitUnits
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import ANNOTATED, OBJECTS, label_video
from features.labels.unit_labels import Space
from tests.features.association.dense import (
    FRAMES,
    by_unit,
    grid_of,
    random_corpus,
    random_labels,
    random_regions,
    records_of,
)
from tests.features.conftest import PlantedVideo
from tests.features.conftest import records_of as planted_records


def corpus_of(grids: list[TokenGrid], seed: int = 0, n_labels: int = 2) -> Corpus:
    rng = np.random.default_rng(seed)
    n_tokens, n_frames = sum(grid.n_tokens for grid in grids), sum(grid.n_t for grid in grids)
    return Corpus(
        records=records_of(grids),
        annotations=[None] * len(grids),
        held_out=np.ones(len(grids), dtype=bool),
        labels={
            OBJECTS: random_labels(rng, n_tokens, n_labels),
            FRAMES: random_labels(rng, n_frames, n_labels),
        },
    )


def lender_of(corpus: Corpus, space: Space) -> tuple[SplitUnits, Lender]:
    units = SplitUnits(corpus, space, held_out=True)
    return units, Lender(units, [corpus.records[video].grid for video in corpus.split(held_out=True)])


def dense(entries: np.ndarray, lender: int, n_units: int, n_labels: int) -> np.ndarray:
    mask = np.zeros((n_units, n_labels), dtype=bool)
    own = entries[entries[:, 0] == lender]
    mask[own[:, 1], own[:, 2]] = True
    assert mask.sum() == len(own), "nothing is lent twice"
    return mask


def check(units: SplitUnits, loan: Loan, place: int, rows: np.ndarray) -> None:
    """The loan of one lender is what its units in `rows` say; nothing where the row is -1."""
    there, row = rows >= 0, np.maximum(rows, 0)
    marks = np.where(there[:, None], units.marks.toarray()[row], 0)
    eligible = units.eligible[row] & there
    positive, spoiled = (marks & POSITIVE) > 0, (marks & SPOILED) > 0
    np.testing.assert_array_equal(loan.eligible[place], eligible)
    np.testing.assert_array_equal(dense(loan.positive, place, len(rows), units.n_labels), positive)
    np.testing.assert_array_equal(dense(loan.spoiled, place, len(rows), units.n_labels), spoiled)


@pytest.mark.parametrize("space", [OBJECTS, FRAMES])
def test_videos_with_equal_grids_lend_unit_by_unit(space: Space) -> None:
    units, lender = lender_of(random_corpus(np.random.default_rng(1), n_videos=7), space)
    lenders = np.array([3, 0, 1])
    loan = lender.loan(1, lenders)
    for place, other in enumerate(lenders):
        check(units, loan, place, np.arange(units.start[other], units.start[other + 1]))


@pytest.mark.parametrize("space", [OBJECTS, FRAMES])
def test_the_nearest_step_lends_and_none_does_after_the_end(space: Space) -> None:
    # Steps at 0 1 2 3 4 s and at 0 .6 1.2 1.8 s: nearest are 0, 1.2 (step 2), 1.8 (3), and 3 s is 1.2 s after the end.
    corpus = corpus_of([grid_of(5), grid_of(4, step_s=0.6)])
    units, lender = lender_of(corpus, space)
    loan = lender.loan(0, np.array([0, 1]))
    size = 4 if space.level == "token" else 1
    check(units, loan, 0, np.arange(5 * size))
    step = np.array([0, 2, 3, -1, -1])
    rows = np.where(step[:, None] >= 0, 5 * size + step[:, None] * size + np.arange(size), -1).reshape(-1)
    check(units, loan, 1, rows)
    # The other way round: 0 and .6 s take 0 and 1 s; 1.2 and 1.8 s take 1 and 2 s.
    step = np.array([0, 1, 1, 2])
    check(units, lender.loan(1, np.array([0])), 0, (step[:, None] * size + np.arange(size)).reshape(-1))


def test_another_layout_lends_at_the_nearest_patch() -> None:
    # Two columns against four, one row: columns 0 1 of the four lie in column 0 of the two.
    corpus = corpus_of([grid_of(2, 1, 4), grid_of(2, 1, 2)])
    units, lender = lender_of(corpus, OBJECTS)
    check(units, lender.loan(0, np.array([1])), 0, 8 + np.array([0, 0, 1, 1, 2, 2, 3, 3]))
    # Centres 1/4 and 3/4 lie as near to columns 0 as to 1, and to 2 as to 3: the first is taken.
    check(units, lender.loan(1, np.array([0])), 0, np.array([0, 2, 4, 6]))


@pytest.mark.parametrize("n_cols", [2, 4])
def test_tokens_that_share_a_region_are_lent_as_others_are(n_cols: int) -> None:
    rng = np.random.default_rng(2)
    corpus = corpus_of([grid_of(5), grid_of(4, step_s=0.6), grid_of(3, 1, n_cols)])
    shared = random_regions(rng, list(corpus.records), 3)
    by_region, by_token = (
        lender_of(replace(corpus, labels={OBJECTS: labels}), OBJECTS)[1] for labels in (shared, by_unit(shared))
    )
    for borrower in range(3):
        ours, theirs = (lender.loan(borrower, np.array([2, 0, 1])) for lender in (by_region, by_token))
        np.testing.assert_equal(asdict(ours), asdict(theirs))


def test_a_loan_is_what_another_annotation_labels_where_grids_are_equal(planted: list[PlantedVideo]) -> None:
    videos: dict[str, Video] = {item.video.video_id: replace(item.video, split="valid") for item in planted[:6]}
    records = [replace(record, split="valid") for record in planted_records(planted[:6])]
    corpus = build_corpus(records, videos, min_videos=0)
    corpus = replace(corpus, held_out=np.ones(len(records), dtype=bool))
    vocabulary = {space: labels.names for space, labels in corpus.labels.items() if space in ANNOTATED}
    other = corpus.annotations[4]
    assert other is not None
    for space, expected in label_video(other, corpus.records[2].grid, vocabulary).items():
        units, lender = lender_of(corpus, space)
        loan = lender.loan(2, np.array([4]))
        np.testing.assert_array_equal(loan.eligible[0], expected.eligible)
        lent = dense(loan.positive, 0, expected.n_units, units.n_labels)
        assert {tuple(entry) for entry in np.argwhere(lent)} == {tuple(entry) for entry in expected.positive}
