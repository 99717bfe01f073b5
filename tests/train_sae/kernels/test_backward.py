"""Decoding, gradients and Adam of the CUDA step against plain tensor operations."""

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.conftest import DEVICE

N_TOKENS, D_IN, D_SAE, N_PREFIXES = 3, 10, 7, 2


class Problem:
    """Entries at two prefixes, one row of them empty, and the dense matrix that they stand for."""

    def __init__(self, n_prefixes: int = N_PREFIXES) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.n_rows = n_prefixes * N_TOKENS
        lengths = torch.tensor([2, 0, 3, 1, 4, 2][: self.n_rows])
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        self.rows = torch.arange(self.n_rows).repeat_interleave(lengths)
        self.latents = torch.cat([torch.randperm(D_SAE - 1, generator=generator)[:n] for n in lengths.tolist()])
        self.values = draw(len(self.rows)).relu()  # some are zero
        self.dec, self.enc, self.centred = draw(D_SAE, D_IN), draw(D_SAE, D_IN), draw(N_TOKENS, D_IN)
        self.f = torch.zeros(self.n_rows, D_SAE)
        self.f[self.rows, self.latents] = self.values

    def residuals(self) -> Tensor:
        """Sums over prefixes p and longer of the residuals."""
        decoded = (self.f @ self.dec).view(-1, N_TOKENS, D_IN).cumsum(0) - self.centred
        return decoded.flip(0).cumsum(0).flip(0).flatten(0, 1)

    def on_device(self, name: str) -> Tensor:
        return getattr(self, name).to(DEVICE)


@pytest.mark.parametrize("n_prefixes", [1, 2])
def test_residuals_and_loss(n_prefixes: int) -> None:
    from train_sae.kernels.decode import decode_residuals

    problem = Problem(n_prefixes)
    out = torch.empty(problem.n_rows, D_IN, device=DEVICE)
    names = ("offsets", "latents", "values", "dec", "centred")
    mse = decode_residuals(*(problem.on_device(name) for name in names), out)
    expected = problem.residuals()
    torch.testing.assert_close(out.cpu(), expected)
    torch.testing.assert_close(mse.cpu(), expected[-N_TOKENS:].square().sum(1).mean())


def test_products_are_those_of_positive_entries() -> None:
    from train_sae.kernels.decode import selected_products

    problem = Problem()
    names = ("offsets", "latents", "values", "dec")
    found = selected_products(*(problem.on_device(n) for n in names), problem.residuals().to(DEVICE), 0.5)
    dense = 0.5 * problem.residuals() @ problem.dec.T
    torch.testing.assert_close(found.cpu(), dense[problem.rows, problem.latents] * (problem.values > 0))
    assert 0 < int((found == 0).sum()) < found.numel()


def gradients(problem: Problem, grad_pre: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by encoder directions, decoder directions and encoder bias, from dense products."""
    dense = torch.zeros(problem.n_rows, D_SAE)
    dense[problem.rows, problem.latents] = grad_pre
    inputs = problem.centred.repeat(N_PREFIXES, 1)
    return dense.T @ inputs, 0.5 * problem.f.T @ problem.residuals(), dense.sum(0)


def test_gradients_by_latents() -> None:
    from train_sae.kernels.backward import Terms, bias_gradient, direction_gradients, index_by_latent

    problem = Problem()
    grad_pre = torch.randn(len(problem.rows), generator=torch.Generator().manual_seed(1))
    index = index_by_latent(problem.on_device("latents"), D_SAE)
    rows = problem.on_device("rows")
    terms = Terms(rows % N_TOKENS, rows, grad_pre.to(DEVICE), 0.5 * problem.on_device("values"))
    enc, dec = torch.empty(D_SAE, D_IN, device=DEVICE), torch.empty(D_SAE, D_IN, device=DEVICE)
    direction_gradients(index, terms, problem.on_device("centred"), problem.residuals().to(DEVICE), enc, dec)
    expected = gradients(problem, grad_pre)
    torch.testing.assert_close(enc.cpu(), expected[0])
    torch.testing.assert_close(dec.cpu(), expected[1])
    torch.testing.assert_close(bias_gradient(index, terms.grad_pre).cpu(), expected[2])
    assert not enc[D_SAE - 1].any(), "a latent that is never selected has no gradient"


@pytest.mark.parametrize("frozen", [False, True])
def test_adam_is_the_one_of_torch_with_projection_and_unit_norm(frozen: bool) -> None:
    from train_sae.kernels.backward import Adam, Moments, Terms, index_by_latent, update_directions

    problem = Problem()
    problem.dec /= problem.dec.norm(dim=1, keepdim=True)
    grad_pre = torch.randn(len(problem.rows), generator=torch.Generator().manual_seed(1))
    index = index_by_latent(problem.on_device("latents"), D_SAE)
    rows = problem.on_device("rows")
    terms = Terms(rows % N_TOKENS, rows, grad_pre.to(DEVICE), 0.5 * problem.on_device("values"))
    weights = {name: problem.on_device(name).clone() for name in ("enc", "dec")}
    moments = {name: Moments(w, torch.zeros_like(w), torch.zeros_like(w)) for name, w in weights.items()}
    shadow = torch.empty(D_SAE, D_IN, device=DEVICE, dtype=torch.bfloat16)
    twins = {name: problem.on_device(name).clone().requires_grad_() for name in ("enc", "dec")}
    lr, betas, eps = 1e-2, (0.9, 0.999), 1e-8
    optimizer = torch.optim.Adam(twins.values(), lr=lr, betas=betas, eps=eps)
    residuals = problem.residuals().to(DEVICE)
    grad_enc, grad_dec, _ = (grad.to(DEVICE) for grad in gradients(problem, grad_pre))
    for step in (1, 2):
        adam = Adam(lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5, *betas, eps)
        decoder = weights["dec"] if frozen else moments["dec"]
        update_directions(index, terms, problem.on_device("centred"), residuals, moments["enc"], decoder, shadow, adam)
        with torch.no_grad():
            dec = twins["dec"]
            along = (grad_dec * dec).sum(1, keepdim=True)
            twins["enc"].grad, dec.grad = grad_enc, None if frozen else grad_dec - along * dec
            optimizer.step()
            if not frozen:
                dec.div_(dec.norm(dim=1, keepdim=True))
        for name, twin in twins.items():
            torch.testing.assert_close(weights[name], twin.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(shadow, weights["enc"].bfloat16())
