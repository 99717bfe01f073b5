"""Expected-norm normalisation."""

import pytest
import torch

from collect.errors import UserError
from train_sae.architectures import Weights
from train_sae.normalize import Normalisation, fold, measure


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
