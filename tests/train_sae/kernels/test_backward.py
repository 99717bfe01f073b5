"""Decoding, gradients and Adam of the CUDA step against plain tensor operations."""

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.conftest import DEVICE

N_TOKENS, D_IN, D_SAE = 3, 10, 7
WIDTHS = (4, D_SAE)
SCALE = 0.5


class Problem:
    """Entries at three tokens, none of them at the second, a free slot, and the dense matrices that they stand for."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        from train_sae.kernels.select import Entries

        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.widths = widths
        tokens, latents = torch.tensor([0, 0, 2, 2, 2, 3]), torch.tensor([1, 5, 0, 1, 4, D_SAE])
        values = draw(len(tokens)).abs() * (tokens < N_TOKENS)
        entries = Entries(torch.tensor([0, 2, 2, 5]), tokens.int(), latents.int(), values)
        self.entries = Entries(*(tensor.to(DEVICE) for tensor in entries))
        self.dec, self.enc, self.centred = draw(D_SAE, D_IN), draw(D_SAE, D_IN), draw(N_TOKENS, D_IN)
        self.dec /= self.dec.norm(dim=1, keepdim=True)
        f = torch.zeros(N_TOKENS, D_SAE)
        f[tokens[:-1], latents[:-1]] = values[:-1]
        begins = (0, *widths[:-1])
        parts = [f * ((torch.arange(D_SAE) >= begin) & (torch.arange(D_SAE) < end))
                 for begin, end in zip(begins, widths, strict=True)]  # fmt: skip
        self.f = torch.cat(parts)
        """One row for each prefix and token."""
        decoded = (self.f @ self.dec).view(-1, N_TOKENS, D_IN).cumsum(0) - self.centred
        self.residuals = decoded.flip(0).cumsum(0).flip(0).flatten(0, 1)
        """Sums over prefixes p and longer of the residuals."""
        self.b_dec = draw(D_IN)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by encoder directions, decoder directions and encoder bias, from dense products."""
        grad_pre = SCALE * self.residuals @ self.dec.T * (self.f > 0)
        inputs = self.centred.repeat(len(self.widths), 1)
        return grad_pre.T @ inputs, SCALE * self.f.T @ self.residuals, grad_pre.sum(0)

    def dots(self) -> Tensor:
        """Product of each entry's direction with its row of the residuals; of the free slot, 0."""
        from train_sae.kernels.decode import prefix_rows

        rows = prefix_rows(self.entries, self.widths, N_TOKENS).cpu()[:-1].long()
        latents = self.entries.latents.cpu()[:-1].long()
        return torch.cat([(self.residuals[rows] * self.dec[latents]).sum(1), torch.zeros(1)])

    def across(self, grad: Tensor) -> Tensor:
        """The decoder's gradient without its part along the directions, which have unit norm."""
        return grad - (grad * self.dec).sum(1, keepdim=True) * self.dec

    def index(self) -> "tuple[object, object]":
        """The arguments of the backward pass."""
        from train_sae.kernels.backward import Batch, index_by_latent
        from train_sae.kernels.decode import prefix_rows

        rows = prefix_rows(self.entries, self.widths, N_TOKENS)
        dots = self.dots().to(DEVICE)
        index = index_by_latent(self.entries.latents, rows, self.entries.values, dots, D_SAE, N_TOKENS)
        return index, Batch(self.centred.to(DEVICE), self.residuals.to(DEVICE), SCALE)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("widths", [(D_SAE,), WIDTHS, (1, 4, 5, D_SAE)])
def test_residuals_and_loss(widths: tuple[int, ...], precision: torch.dtype) -> None:
    from train_sae.kernels.decode import decode_residuals, prefix_bounds

    problem = Problem(widths)
    out = torch.empty(len(widths) * N_TOKENS, D_IN, device=DEVICE, dtype=precision)
    bounds = prefix_bounds(problem.entries, widths, N_TOKENS)
    entries, dec, b_dec = problem.entries, problem.dec.to(DEVICE, precision), problem.b_dec.to(DEVICE)
    x = (problem.centred + problem.b_dec).to(DEVICE)
    mse, dots = decode_residuals(bounds, entries.latents, entries.values, dec, b_dec, x, out)
    expected = problem.residuals[-N_TOKENS:].square().sum(1).mean()
    if precision == torch.float32:
        torch.testing.assert_close(out.cpu(), problem.residuals)
        torch.testing.assert_close(mse.cpu(), expected)
        torch.testing.assert_close(dots.cpu()[:-1], problem.dots()[:-1])
    else:  # of residuals up to about 10, 8 bits
        torch.testing.assert_close(out.cpu().float(), problem.residuals, rtol=2**-6, atol=0.05)
        torch.testing.assert_close(mse.cpu(), expected, rtol=2**-6, atol=0.0)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_input_and_its_spread(precision: torch.dtype) -> None:
    from train_sae.kernels.centre import centre

    generator = torch.Generator().manual_seed(0)
    x, b_dec = torch.randn(37, D_IN, generator=generator), torch.randn(D_IN, generator=generator)
    inputs, center, variance = centre(x.to(DEVICE), b_dec.to(DEVICE), precision)
    tolerance = {"rtol": 2**-7, "atol": 0.0} if precision == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(inputs.cpu().float(), x - b_dec, **tolerance)
    torch.testing.assert_close(center.cpu(), x.mean(0))
    torch.testing.assert_close(variance.cpu(), (x - x.mean(0)).square().sum(1).mean())


def test_entries_by_latent() -> None:
    problem = Problem()
    index, _ = problem.index()
    # Latents 0 1 4 5 have 1 2 1 1 entries; of these latents 4 and 5 are not in the first prefix, so 3 rows further on.
    assert index.offsets.tolist() == [0, 1, 3, 3, 3, 4, 5, 5]
    assert index.rows.tolist()[:5] == [2, 0, 2, 2 + 3, 0 + 3]
    order = [2, 0, 3, 4, 1]
    assert index.values.tolist()[:5] == problem.entries.values[order].tolist()
    assert index.heavy_first.tolist() == [1, 0, 4, 5, 2, 3, 6]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("with_extra", [False, True])
def test_gradients_by_latents(with_extra: bool, frozen: bool) -> None:
    from train_sae.kernels.backward import DeadGradients, gradients

    problem = Problem()
    expected = [grad.clone() for grad in problem.gradients()]
    extra = None
    if with_extra:  # latents 1 and 6 get more
        more = [torch.randn(2, D_IN), torch.randn(2, D_IN), torch.randn(2)]
        row = torch.tensor([-1, 0, -1, -1, -1, -1, 1], device=DEVICE)
        along = (more[1] * problem.dec[[1, 6]]).sum(1)
        extra = DeadGradients(row, *(tensor.to(DEVICE) for tensor in (*more, along)))
        for grad, addition in zip(expected, more, strict=True):
            grad[[1, 6]] += addition
    expected[1] = problem.across(expected[1])
    found = gradients(*problem.index(), problem.dec.to(DEVICE), extra, trains_dec=not frozen)
    assert (found.dec is None) == frozen
    trained = [expected[0], *([] if frozen else [expected[1]]), expected[2]]
    for grad, wanted in zip([grad for grad in found[:3] if grad is not None], trained, strict=True):
        torch.testing.assert_close(grad.cpu(), wanted)
    squares = sum(grad.flatten(1).square().sum(1) if grad.ndim > 1 else grad.square() for grad in trained)
    torch.testing.assert_close(found.squares.cpu(), squares)
    assert not found.enc[3].any(), "a latent that is never selected has no gradient"


def test_gradients_are_written_in_the_precision_that_is_asked_for() -> None:
    from train_sae.kernels.backward import gradients

    problem = Problem()
    exact = gradients(*problem.index(), problem.dec.to(DEVICE))
    rounded = gradients(*problem.index(), problem.dec.to(DEVICE), dtype=torch.bfloat16)
    assert rounded.dec is not None
    assert exact.dec is not None
    assert rounded.enc.dtype == rounded.dec.dtype == torch.bfloat16
    for found, wanted in ((rounded.enc, exact.enc), (rounded.dec, exact.dec)):
        torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=0.0)
    assert torch.equal(rounded.b_enc, exact.b_enc)


@pytest.mark.parametrize("n_programs", [3, 1024])
def test_a_weighted_sum_of_rows(n_programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from train_sae.kernels import backward

    monkeypatch.setattr(backward, "_MAX_PROGRAMS", n_programs)
    problem = Problem()
    coefficients = torch.arange(D_SAE, dtype=torch.float32)
    found = backward.weighted_sum(coefficients.to(DEVICE), problem.enc.to(DEVICE))
    torch.testing.assert_close(found.cpu(), coefficients @ problem.enc)


@pytest.mark.parametrize("divisor", [1.0, 3.0])
def test_adam_is_the_one_of_torch_with_unit_norm(divisor: float) -> None:
    from train_sae.kernels.adam import AdamMoments, Rates, adam_rows, adam_vector

    generator = torch.Generator().manual_seed(0)
    problem = Problem()
    weights = {"enc": problem.enc, "dec": problem.dec, "bias": torch.randn(1500, generator=generator)}
    weights = {name: weight.to(DEVICE).clone() for name, weight in weights.items()}
    moments = {name: AdamMoments(w, torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    shadow = torch.empty(D_SAE, D_IN, device=DEVICE, dtype=torch.bfloat16)
    twins = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    lr, betas, eps = 1e-2, (0.9, 0.999), 1e-8
    optimizer = torch.optim.Adam(twins.values(), lr=lr, betas=betas, eps=eps)
    for step in (1, 2):
        grads = {name: torch.randn(w.shape, generator=generator).to(DEVICE) for name, w in weights.items()}
        numbers = [lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5, divisor]
        given = torch.tensor(numbers, device=DEVICE), Rates(1 - betas[0], 1 - betas[1], eps)
        adam_rows(moments["enc"], grads["enc"], *given, shadow)
        adam_rows(moments["dec"], grads["dec"], *given, is_unit=True)
        adam_vector(moments["bias"], grads["bias"], *given)
        with torch.no_grad():
            for name, twin in twins.items():
                twin.grad = grads[name] / divisor
            optimizer.step()
            twins["dec"].div_(twins["dec"].norm(dim=1, keepdim=True))
        for name, twin in twins.items():
            torch.testing.assert_close(weights[name], twin.detach(), rtol=1e-5, atol=1e-6)
            kept = optimizer.state[twin]
            torch.testing.assert_close(moments[name].mean, kept["exp_avg"], rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(moments[name].square, kept["exp_avg_sq"], rtol=1e-4, atol=1e-10)
        # The interpreter truncates, where a GPU rounds to the nearest.
        torch.testing.assert_close(shadow.float(), weights["enc"], rtol=2**-7, atol=0.0)
