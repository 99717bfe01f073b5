"""Quality of an SAE over a set of tokens."""

import math

import pytest
import torch

from train_sae.metrics import evaluate
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
    quality, firing_rate = evaluate(axis_sae(), [X])
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
    whole, _ = evaluate(axis_sae((2.0, 1.0)), [x])
    parts, _ = evaluate(axis_sae((2.0, 1.0)), x.split(7))
    assert parts.n_tokens == 101
    for name, value in vars(whole).items():
        assert getattr(parts, name) == pytest.approx(value), name


def test_a_large_mean_does_not_spoil_the_variance() -> None:
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) + 3e4
    sae = axis_sae((3e4, 3e4))
    expected = float((x.double() - x.double().mean(0)).square().sum())
    error = float((x.double() - sae.decode(sae.encode(x)).double()).square().sum())
    quality, _ = evaluate(sae, x.split(100))
    assert quality.fvu == pytest.approx(error / expected, rel=1e-6)


def test_fvu_of_the_mean_is_one() -> None:
    sae = axis_sae((0.0, 0.75))
    quality, _ = evaluate(Sae(**{**vars(sae), "threshold": torch.full((3,), 1e9)}), [X])
    assert quality.fvu == pytest.approx(1)
    assert quality.n_dead == 3
