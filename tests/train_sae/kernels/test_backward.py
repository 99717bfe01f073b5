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

    def gradients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients by encoder directions, decoder directions and encoder bias, from dense products."""
        grad_pre = SCALE * self.residuals @ self.dec.T * (self.f > 0)
        inputs = self.centred.repeat(len(self.widths), 1)
        return grad_pre.T @ inputs, SCALE * self.f.T @ self.residuals, grad_pre.sum(0)

    def index(self) -> "tuple[object, object]":
        """The arguments of the backward pass."""
        from train_sae.kernels.backward import Batch, index_by_latent
        from train_sae.kernels.decode import prefix_rows

        rows = prefix_rows(self.entries, self.widths, N_TOKENS)
        index = index_by_latent(self.entries.latents, rows, self.entries.values, D_SAE)
        return index, Batch(self.centred.to(DEVICE), self.residuals.to(DEVICE), SCALE)


@pytest.mark.parametrize("widths", [(D_SAE,), WIDTHS, (1, 4, 5, D_SAE)])
def test_residuals_and_loss(widths: tuple[int, ...]) -> None:
    from train_sae.kernels.decode import decode_residuals, prefix_bounds

    problem = Problem(widths)
    out = torch.empty(len(widths) * N_TOKENS, D_IN, device=DEVICE)
    bounds = prefix_bounds(problem.entries, widths, N_TOKENS)
    entries, dec, centred = problem.entries, problem.dec.to(DEVICE), problem.centred.to(DEVICE)
    mse = decode_residuals(bounds, entries.latents, entries.values, dec, centred, out)
    torch.testing.assert_close(out.cpu(), problem.residuals)
    torch.testing.assert_close(mse.cpu(), problem.residuals[-N_TOKENS:].square().sum(1).mean())


def test_entries_by_latent() -> None:
    problem = Problem()
    index, _ = problem.index()
    # Latents 0 1 4 5 have 1 2 1 1 entries; of these latents 4 and 5 are not in the first prefix, so 3 rows further on.
    assert index.offsets.tolist() == [0, 1, 3, 3, 3, 4, 5, 5]
    assert index.rows.tolist()[:5] == [2, 0, 2, 2 + 3, 0 + 3]
    order = [2, 0, 3, 4, 1]
    assert index.values.tolist()[:5] == problem.entries.values[order].tolist()
    assert index.heavy_first.tolist() == [1, 0, 4, 5, 2, 3, 6]


@pytest.mark.parametrize("with_extra", [False, True])
def test_gradients_by_latents(with_extra: bool) -> None:
    from train_sae.kernels.backward import Extra, direction_gradients

    problem = Problem()
    enc, dec = torch.empty(D_SAE, D_IN, device=DEVICE), torch.empty(D_SAE, D_IN, device=DEVICE)
    expected = [grad.clone() for grad in problem.gradients()]
    extra = None
    if with_extra:  # latents 1 and 6 get more
        more = [torch.randn(2, D_IN), torch.randn(2, D_IN), torch.randn(2)]
        row = torch.tensor([-1, 0, -1, -1, -1, -1, 1], device=DEVICE)
        extra = Extra(row, *(tensor.to(DEVICE) for tensor in more))
        for grad, addition in zip(expected, more, strict=True):
            grad[[1, 6]] += addition
    weights = (problem.enc.to(DEVICE), problem.dec.to(DEVICE))
    biases = direction_gradients(*problem.index(), (weights[0], enc), (weights[1], dec), extra)
    for found, wanted in zip((enc, dec, biases.b_enc), expected, strict=True):
        torch.testing.assert_close(found.cpu(), wanted)
    torch.testing.assert_close(biases.through_encoder.cpu(), expected[2] @ problem.enc)
    assert not enc[3].any(), "a latent that is never selected has no gradient"


def test_programs_that_take_several_latents_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from train_sae.kernels import backward

    monkeypatch.setattr(backward, "_MAX_PROGRAMS", 2)
    test_gradients_by_latents(with_extra=True)


@pytest.mark.parametrize("frozen", [False, True])
def test_adam_is_the_one_of_torch_with_projection_and_unit_norm(frozen: bool) -> None:
    from train_sae.kernels.backward import Adam, Moments, update_directions

    problem = Problem()
    weights = {"enc": problem.enc.to(DEVICE).clone(), "dec": problem.dec.to(DEVICE).clone()}
    moments = {name: Moments(w, torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    shadow = torch.empty(D_SAE, D_IN, device=DEVICE, dtype=torch.bfloat16)
    twins = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    lr, betas, eps = 1e-2, (0.9, 0.999), 1e-8
    optimizer = torch.optim.Adam(twins.values(), lr=lr, betas=betas, eps=eps)
    for step in (1, 2):
        problem.dec = weights["dec"].cpu()  # the products are taken with the directions as they are
        grad_enc, grad_dec, _ = (grad.to(DEVICE) for grad in problem.gradients())
        adam = Adam(lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5, 1 - betas[0], 1 - betas[1], eps)
        decoder = weights["dec"] if frozen else moments["dec"]
        update_directions(*problem.index(), moments["enc"], decoder, shadow, adam)
        with torch.no_grad():
            dec = twins["dec"]
            along = (grad_dec * dec).sum(1, keepdim=True)
            twins["enc"].grad, dec.grad = grad_enc, None if frozen else grad_dec - along * dec
            optimizer.step()
            if not frozen:
                dec.div_(dec.norm(dim=1, keepdim=True))
        for name, twin in twins.items():
            torch.testing.assert_close(weights[name], twin.detach(), rtol=1e-5, atol=1e-6)
            if twin.grad is not None:
                kept = optimizer.state[twin]
                torch.testing.assert_close(moments[name].mean, kept["exp_avg"], rtol=1e-4, atol=1e-7)
                torch.testing.assert_close(moments[name].square, kept["exp_avg_sq"], rtol=1e-4, atol=1e-10)
        torch.testing.assert_close(shadow, weights["enc"].bfloat16())
