from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

import features.association.controls
from collect.reading import ActivationStore
from features.association.controls import Controls, control_directions, encode_controls, matched_rates
from features.association.selection import score_some
from features.association.split_units import SplitUnits
from tests.features.association.dense import random_codes, random_corpus
from tests.features.conftest import SITE

RATES = np.array([0.0, 0.01, 0.01, 0.02, 0.05, 0.1, 0.1, 0.3])


def test_controls_fire_as_often_as_the_latents(store: ActivationStore) -> None:
    controls = encode_controls(store, SITE, RATES, n=12, rng=np.random.default_rng(0), batch_size=300)
    np.testing.assert_allclose(controls.rates, matched_rates(RATES))
    fired = np.diff(controls.codes.tocsc().indptr) / store.n_tokens
    # Single dimensions may be zero at most tokens, and then fire less often.
    smooth = fired.reshape(len(controls.rates), 12)[:, 6:]
    np.testing.assert_allclose(smooth, np.broadcast_to(controls.rates[:, None], smooth.shape), rtol=0.1)
    assert controls.codes.data.min() > 0


def test_controls_do_not_depend_on_the_batch_size(store: ActivationStore) -> None:
    both = [
        encode_controls(store, SITE, RATES, n=6, rng=np.random.default_rng(0), batch_size=size) for size in (128, 1000)
    ]
    assert abs(both[0].codes - both[1].codes).max() < 1e-5


def test_each_latent_is_compared_at_the_nearest_rate(store: ActivationStore) -> None:
    controls = encode_controls(store, SITE, RATES, n=2, rng=np.random.default_rng(0), batch_size=4096)
    bins = controls.bin_of(np.array([0.0, 1.0, *controls.rates]))
    assert bins.tolist() == [0, len(controls.rates) - 1, *range(len(controls.rates))]


def test_directions_are_unit_raw_dimensions_and_random_ones() -> None:
    directions = control_directions(8, 10, np.random.default_rng(0))
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(10))
    assert ((directions[:, :5] != 0).sum(dim=0) == 1).all()
    assert ((directions[:, 5:] != 0).sum(dim=0) == 8).all()


def test_raw_directions_do_not_repeat() -> None:
    directions = control_directions(3, 100, np.random.default_rng(0))
    assert len(torch.unique(directions[:, :6], dim=1).T) == 6


def test_rates_of_dead_latents_only() -> None:
    assert matched_rates(np.zeros(3)) == pytest.approx([0.01])


def test_scores_do_not_depend_on_how_many_controls_are_scored_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    corpus = random_corpus(rng, n_videos=9)
    codes = random_codes(rng, corpus.records[-1].row_stop, n_latents=7)
    controls = Controls(codes=sparse.csr_array(codes), bin=np.zeros(7, dtype=np.int64), rates=np.array([0.5]))
    units = SplitUnits.of_split(corpus, held_out=True)
    whole = controls.score(units)
    monkeypatch.setattr(features.association.controls, "MAX_NONZEROS", 20)
    np.testing.assert_array_equal(controls.score(units), whole)
    np.testing.assert_array_equal(score_some(sparse.csc_array(codes), units), whole)
