"""The screen equals the exact effect where the model is linear, and ranks as its statistic says."""

import numpy as np
import pytest
import torch

from ask.answers import answers
from ask.cases import edited_logits
from ask.packing import Asked
from steer.codes import VideoCodes
from steer.edits.interventions import residual_change
from steer.screens.gradient import RunningMoments, attribution, margin_gradients, standardise
from tests.steer.toy import LETTERS, N_VISUAL, ToyVlm, counting_item, noncounting_item, toy_case, toy_sae, visual

EVIDENCE_TOKENS = torch.tensor([0.0, 40.0, 20.0, 60.0])


@pytest.mark.parametrize("packed", [True, False])
def test_screen_equals_exact_where_the_margin_is_linear(packed: bool) -> None:
    # With numbers 50 apart and this much evidence the logsumexp of the wrong letters is their maximum to the last bit,
    # so the margin is linear in the residuals.
    vlm, sae = ToyVlm(), toy_sae(scale=0.5)
    items = (
        counting_item(question_id=0, options=("0", "50", "100"), answer_id=2),
        counting_item(question_id=1, options=("0", "50", "100"), answer_id=0),
    )
    case = toy_case(vlm, visual(EVIDENCE_TOKENS, noise=torch.ones(N_VISUAL, 4)), items, packed=packed)
    codes = VideoCodes.of(sae, case.sequences.visual)
    (gradient,) = margin_gradients(Asked(vlm=vlm, site="resid/0", letters=LETTERS), case, [(0, 1)])
    assert gradient is not None
    estimate, reach = attribution(codes, sae.W_dec, gradient)
    assert (reach >= estimate.abs()).all()
    margin = answers(case.logits, case.mass, case.correct, case.values).margin.mean()
    for latent in range(8):
        f = codes.columns([latent])
        change = residual_change(f, torch.zeros_like(f), sae.W_dec[[latent]])
        logits, mass = edited_logits(Asked(vlm=vlm, site="resid/0", letters=LETTERS), case, [change], 1)
        exact = answers(logits[0], mass[0], case.correct, case.values).margin.mean() - margin
        assert float(estimate[latent]) == pytest.approx(float(exact), rel=1e-5, abs=1e-3), latent
    assert abs(float(estimate[0])) > 1.0
    assert torch.count_nonzero(estimate) == 1  # only the planted direction matters


def test_groups_of_items_have_their_own_gradients() -> None:
    vlm = ToyVlm()
    case = toy_case(vlm, visual(torch.ones(N_VISUAL)), (counting_item(), noncounting_item()))
    counting, control, nothing = margin_gradients(
        Asked(vlm=vlm, site="resid/0", letters=LETTERS), case, [(0,), (1,), ()]
    )
    assert counting is not None
    assert control is not None
    assert nothing is None
    assert counting[:, 0].abs().min() > 0
    assert torch.count_nonzero(control) == 0  # the toy's control answers do not depend on what it sees


def test_attribution_by_hand() -> None:
    codes = VideoCodes(
        token=torch.tensor([0, 0, 1]), latent=torch.tensor([0, 2, 2]), value=torch.tensor([1.0, 2.0, 3.0]), n_tokens=2
    )
    decoder = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.0, 2.0]])
    gradient = torch.tensor([[10.0, 1.0], [0.0, -1.0]])
    # latent 0: -(1 x 10); latent 1 silent; latent 2: -(2 x 2 x 1 + 3 x 2 x -1)
    estimate, reach = attribution(codes, decoder, gradient)
    assert estimate.tolist() == [-10.0, 0.0, 2.0]
    assert reach.tolist() == [10.0, 0.0, 10.0]


def test_running_moments_are_numpys() -> None:
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    moments = RunningMoments.zeros(3)
    assert np.isnan(moments.mean).all()
    for row in rows:
        moments.add(row)
    array = rows.double().numpy()
    np.testing.assert_allclose(moments.mean, array.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.standard_error, array.std(axis=0, ddof=1) / np.sqrt(7), rtol=1e-6)


def test_standardising_keeps_small_but_even_latents_from_leading() -> None:
    mean = np.array([1e-6, -2.0, 0.0])
    error = np.array([1e-9, 1.0, 0.5])
    # s0 is the median standard error of the first two, 0.5
    found = standardise(mean, error, np.array([True, True, False]))
    np.testing.assert_allclose(found, [2e-6, -2.0 / 1.5, 0.0], rtol=1e-3)
