"""The linear map by oneDNN: torch's, with its gradients."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from train_sae.step import linear as module
from train_sae.step.linear import linear

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 40),
    d_in=st.integers(0, 40),
    d_out=st.integers(0, 70),
    dtype=st.sampled_from(sorted(TOLERANCE, key=str)),
    has_bias=st.booleans(),
    is_transposed=st.booleans(),
)
def test_result_and_gradients_are_those_of_torch(
    rows: int, d_in: int, d_out: int, dtype: torch.dtype, has_bias: bool, is_transposed: bool
) -> None:
    generator = torch.Generator().manual_seed(rows + 50 * d_in + 2500 * d_out)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    x, bias, grad = draw(rows, d_in), draw(d_out) if has_bias else None, draw(rows, d_out).detach()
    stored = draw(d_in, d_out) if is_transposed else draw(d_out, d_in)
    weight = stored.T if is_transposed else stored
    inputs = [x, stored] if bias is None else [x, stored, bias]
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    gradients = [torch.autograd.grad(y, inputs, grad) for y in (found, expected)]
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * max(1, d_in, d_out, rows) ** 0.5}
    torch.testing.assert_close(found, expected, **tolerance)
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_onednn_takes_single_precision_and_can_be_switched_off() -> None:
    x, weight = torch.randn(4, 3), torch.randn(5, 3)
    with mock.patch.object(module.F, "linear", side_effect=F.linear) as torchs:
        linear(x, weight)
        assert not torchs.called
        linear(x.double(), weight.double())
        assert torchs.call_count == 1
        torch.backends.mkldnn.set_flags(False)
        try:
            linear(x, weight)
        finally:
            torch.backends.mkldnn.set_flags(True)
        assert torchs.call_count == 2


def test_a_gradient_has_a_gradient() -> None:
    x, weight = torch.randn(4, 3), torch.randn(5, 3, requires_grad=True)
    found = []
    for product in (linear, F.linear):
        (grad,) = torch.autograd.grad(product(x, weight).square().sum(), weight, create_graph=True)
        found += torch.autograd.grad(grad.square().sum(), weight)
    torch.testing.assert_close(*found)
