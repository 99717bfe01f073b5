"""Quality of an SAE over a set of tokens."""

import json
import math

import pytest
import torch

from train_sae.quality.metrics import decoder_coherence, evaluate, firing_rate_histogram
from train_sae.sae import Sae


def axis_sae(b_dec: tuple[float, float] = (0.0, 0.0)) -> Sae:
    """Two latents along the axes, the second of which reconstructs half of what it sees; a third never fires."""
    return Sae(
        architecture="jumprelu",
        k=1,
        W_enc=torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 0.5], [1.0, 1.0]]),
        b_enc=torch.tensor([0.0, 0.0, -1.0]),
        b_dec=torch.tensor(b_dec),
        threshold=torch.zeros(3),
    )


X = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-3.0, 0.0]])


def test_numbers_by_hand() -> None:
    # x_hat: (2, 0), (0, 1), (1, 0.5), (0, 0).
    ((quality, firing_rate),) = evaluate([axis_sae()], [X])
    # Errors: 0 + 1 + 0.25 + 9. Mean (0, 0.75); Σ‖x‖² = 4 + 4 + 2 + 9 = 19; variance 19 − 4 · 0.5625 = 16.75.
    assert quality.fvu == pytest.approx(10.25 / 16.75)
    assert quality.explained_variance == pytest.approx(6.5 / 16.75)
    assert quality.l0 == 1.0  # 1 + 1 + 2 + 0 active latents at 4 tokens
    assert quality.n_dead == 1
    assert quality.n_dense == 2
    # 1, 1, (1 + 0.5) / (√2 · √1.25), 0
    assert quality.cosine == pytest.approx((2 + 1.5 / math.sqrt(2.5)) / 4)
    # Σ‖x_hat‖² = 4 + 1 + 1.25; Σ x·x_hat = 4 + 2 + 1.5
    assert quality.relative_bias == pytest.approx(6.25 / 7.5)
    assert firing_rate.tolist() == [0.5, 0.5, 0]


def test_numbers_do_not_depend_on_the_chunks() -> None:
    x = torch.randn(101, 2, generator=torch.Generator().manual_seed(0)) + 3
    ((whole, _),) = evaluate([axis_sae((2.0, 1.0))], [x])
    ((parts, _),) = evaluate([axis_sae((2.0, 1.0))], x.split(7))
    assert parts.n_tokens == 101
    for name, value in vars(whole).items():
        assert getattr(parts, name) == pytest.approx(value), name


def test_what_is_not_defined_is_null_in_json() -> None:
    # Equal tokens have no variance, and no reconstruction is longer or shorter than nothing.
    ((quality, _),) = evaluate([axis_sae()], [torch.full((3, 2), -1.0)])
    assert math.isnan(quality.fvu)
    written = json.loads(json.dumps(quality.to_json(), allow_nan=False))
    assert [name for name, value in written.items() if value is None] == ["fvu", "explained_variance", "relative_bias"]
    assert written["n_tokens"] == 3


def test_a_large_mean_does_not_spoil_the_variance() -> None:
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) + 3e4
    sae = axis_sae((3e4, 3e4))
    expected = float((x.double() - x.double().mean(0)).square().sum())
    error = float((x.double() - sae.decode(sae.encode(x)).double()).square().sum())
    ((quality, _),) = evaluate([sae], x.split(100))
    assert quality.fvu == pytest.approx(error / expected, rel=1e-6)


def test_fvu_of_the_mean_is_one() -> None:
    sae = axis_sae((0.0, 0.75))
    ((quality, _),) = evaluate([Sae(**{**vars(sae), "threshold": torch.full((3,), 1e9)})], [X])
    assert quality.fvu == pytest.approx(1)
    assert quality.n_dead == 3


def test_several_saes_share_one_pass() -> None:
    saes = [axis_sae(), axis_sae((2.0, 1.0))]
    together = evaluate(saes, iter(X.split(3)))  # an iterator can be gone through once only
    for sae, (quality, rates) in zip(saes, together, strict=True):
        ((alone, expected),) = evaluate([sae], [X])
        assert quality == alone
        assert torch.equal(rates, expected)


def test_firing_rates_fall_into_half_decades() -> None:
    # Never; 10^-8 below all bins; 10^-7 = first edge; 0.2 between 10^-1 and 10^-0.5; 0.5 and 1 beyond 10^-0.5.
    histogram = firing_rate_histogram(torch.tensor([0, 1e-8, 1e-7, 0.2, 0.5, 1.0], dtype=torch.float64))
    assert len(histogram) == 16
    assert {place: count for place, count in enumerate(histogram) if count} == {0: 1, 1: 1, 2: 1, 14: 1, 15: 2}


def test_coherence_by_hand() -> None:
    found = decoder_coherence(torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 1.0], [0.0, 0.0]]))
    # Largest |cosine| with another: √½, √½, √½, and 0 for the direction without length.
    assert found.decoder_coherence_max == pytest.approx(math.sqrt(0.5))
    assert found.decoder_coherence_mean == pytest.approx(0.75 * math.sqrt(0.5))
    assert decoder_coherence(torch.ones(1, 2)).decoder_coherence_max == 0


def test_coherence_of_many_latents_equals_that_of_all_pairs() -> None:
    directions = torch.randn(1100, 5, generator=torch.Generator().manual_seed(0))
    unit = directions / directions.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0).amax(1)
    found = decoder_coherence(directions)  # in three blocks
    assert found.decoder_coherence_mean == pytest.approx(float(cosines.mean()), rel=1e-5)
    assert found.decoder_coherence_max == pytest.approx(float(cosines.max()), rel=1e-5)
