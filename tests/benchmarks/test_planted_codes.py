"""What stands in for the whole benchmark: its shape, and that its planted latents go along with their labels."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from benchmarks.features import exponent
from benchmarks.planted_codes import HELD_OUT, L0, SIDE, TRAIN, make_corpus, write_codes
from features.association.selection import score_some
from features.association.split_units import SplitUnits
from features.labels.corpus import Corpus
from features.labels.labelling import OBJECTS

SHARE, N_T, D_SAE = 1 / 100, 4, 2048


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(SHARE, N_T)


def test_videos_have_the_benchmarks_shape(corpus: Corpus) -> None:
    assert len(corpus.split(held_out=False)) == round(SHARE * TRAIN)
    assert len(corpus.split(held_out=True)) == round(SHARE * HELD_OUT)
    assert {record.n_tokens for record in corpus.records} == {N_T * SIDE * SIDE}
    assert len(corpus.all_labels()) > 100
    assert 0.1 < corpus.labels[OBJECTS].eligible.mean() < 0.4


def test_planted_latents_go_along_with_their_label(corpus: Corpus, tmp_path: Path) -> None:
    codes = write_codes(tmp_path / "codes.zarr", corpus, d_sae=D_SAE)
    matrix = codes.rows(0, codes.n_tokens)
    assert 0.8 * L0 < codes.n_nonzeros / codes.n_tokens <= L0
    labels = corpus.labels[OBJECTS]
    n_labels = len(labels.names)
    areas = score_some(sparse.csc_array(matrix), [SplitUnits(corpus, OBJECTS, held_out=False)])
    planted = D_SAE - 1 - np.arange(5 * n_labels)
    own = areas[planted, np.arange(5 * n_labels) % n_labels]
    others = areas[: D_SAE // 2]
    assert np.nanmean(own) > 0.6
    assert abs(np.nanmean(others) - 0.5) < 0.02


def test_exponents_by_hand() -> None:
    # Four times the size takes four times as long, twice as long, or sixteen times.
    assert [exponent(times, 1.0) for times in (4.0, 2.0, 16.0)] == pytest.approx([1.0, 0.5, 2.0])
