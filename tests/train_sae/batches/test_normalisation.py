"""Expected-norm normalisation."""

import pytest
import torch

from collect.errors import UserError
from train_sae.batches.normalisation import Normalisation, fold, measure
from train_sae.options import NormalizeActivations, SaeOptions
from train_sae.step.architectures import Weights


def test_measures_the_mean_norm_and_the_mean_over_all_chunks() -> None:
    # Norms 5, 13 and 0: mean 6, and sqrt(2) / 6 brings it to sqrt(d_in). Mean: (8/3, −8/3).
    found = measure([torch.tensor([[3.0, 4.0], [5.0, -12.0]]), torch.tensor([[0.0, 0.0]])])
    assert found.scale == pytest.approx(2**0.5 / 6)
    torch.testing.assert_close(found.mean, torch.tensor([8 / 3, -8 / 3], dtype=torch.float64))


def test_measures_bfloat16_without_rounding_the_sums() -> None:
    rows = torch.full((3000, 1), 1.0, dtype=torch.bfloat16)
    assert measure(rows.split(7)).scale == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_activations_without_a_scale_are_a_user_error(value: float) -> None:
    with pytest.raises(UserError, match="collect them again"):
        measure([torch.full((4, 2), value)])


def test_folded_weights_do_to_raw_input_what_the_others_do_to_scaled_input() -> None:
    generator = torch.Generator().manual_seed(0)
    enc, dec, b_enc, b_dec, x = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 4), (9, 4), (9,), (4,), (50, 4))
    )
    scale = 0.37
    folded = fold(Weights(enc=enc, dec=dec, b_enc=b_enc, b_dec=b_dec), Normalisation(scale, torch.zeros(4)))
    f = ((scale * x - b_dec) @ enc.T + b_enc).relu()
    f_folded = ((x - folded.b_dec) @ folded.enc.T + folded.b_enc).relu()
    torch.testing.assert_close(f_folded, f)
    torch.testing.assert_close(f_folded @ folded.dec + folded.b_dec, (f @ dec + b_dec) / scale)


def correlated(n: int = 4000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    return 30 * (torch.randn(n, 5, generator=generator, dtype=torch.float64) @ mixing + 2)


@pytest.mark.parametrize("kind", ["covariance_whitening", "covariance_whitening_zca"])
def test_whitened_activations_have_no_mean_and_the_identity_as_covariance(kind: NormalizeActivations) -> None:
    x = correlated()
    found = measure(x.split(700), SaeOptions(normalize_activations=kind, whitening_epsilon=1e-9))
    z = found.apply(x).double()
    torch.testing.assert_close(z.mean(0), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(z.T @ z / len(z), torch.eye(5, dtype=torch.float64), rtol=0, atol=1e-3)
    assert found.matrix is not None
    assert found.inverse is not None
    torch.testing.assert_close(found.matrix @ found.inverse, torch.eye(5, dtype=torch.float64))
    assert torch.allclose(found.matrix, found.matrix.T) is (kind == "covariance_whitening_zca")
    assert found.center.tolist() == [0] * 5


def test_folded_weights_do_to_raw_input_what_the_others_do_to_whitened_input() -> None:
    x = correlated(50)
    normalisation = measure([x], SaeOptions(normalize_activations="covariance_whitening"))
    generator = torch.Generator().manual_seed(0)
    enc, dec, b_enc, b_dec = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 5), (9, 5), (9,), (5,))
    )
    folded = fold(Weights(enc=enc, dec=dec, b_enc=b_enc, b_dec=b_dec), normalisation)
    assert normalisation.matrix is not None
    z = (x - normalisation.mean) @ normalisation.matrix
    f = ((z - b_dec) @ enc.T + b_enc).relu()
    f_folded = ((x - folded.b_dec) @ folded.enc.T + folded.b_enc).relu()
    torch.testing.assert_close(f_folded, f)
    x_hat = torch.linalg.solve(normalisation.matrix.T, (f @ dec + b_dec).T).T + normalisation.mean
    torch.testing.assert_close(f_folded @ folded.dec + folded.b_dec, x_hat)


def test_nothing_is_done_to_the_input_when_nothing_is_asked() -> None:
    x = correlated(20).float()
    assert torch.equal(measure([x], SaeOptions(normalize_activations="none")).apply(x), x)


def test_long_tokens_are_shortened_to_multiples_of_the_median_norm() -> None:
    # Norms 1, 1, 2, 100, lower median 1: those above 3 become 3, and the mean norm is (1 + 1 + 2 + 3) / 4 = 1.75.
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [60.0, 80.0]])
    found = measure([x], SaeOptions(max_norm=3.0))
    assert found.max_norm == 3
    assert found.scale == pytest.approx(2**0.5 / 1.75)
    torch.testing.assert_close(found.apply(x) / found.scale, torch.cat([x[:3], torch.tensor([[1.8, 2.4]])]))


@pytest.mark.parametrize("kind", ["none", "expected_average_only_in", "covariance_whitening"])
def test_a_normalisation_comes_back_from_its_tensors(kind: NormalizeActivations) -> None:
    found = measure([correlated(30)], SaeOptions(normalize_activations=kind, max_norm=2.0))
    back = Normalisation.from_tensors({**found.tensors(), "other": torch.zeros(1)}, kind)
    assert (back.kind, back.scale, back.max_norm) == (kind, found.scale, found.max_norm)
    assert torch.equal(back.apply(correlated(7)), found.apply(correlated(7)))


def test_whitening_cannot_be_folded_into_tied_weights() -> None:
    dec = torch.eye(5)
    tied = Weights(enc=dec, dec=dec, b_enc=torch.zeros(5), b_dec=torch.zeros(5))
    with pytest.raises(UserError, match="its encoder is its decoder"):
        fold(tied, measure([correlated(30)], SaeOptions(normalize_activations="covariance_whitening")))
