"""One training step, twice: a reference in plain autograd that defines what is correct, and a sparse one that is fast.

Both minimise, over the batch of normalised activations x,

    mean_t ‖x_t − x_hat_t‖²  +  1/32 · mean_t ‖e_t − e_hat_t‖²,       x_hat = f W_dec + b_dec,   e = x − x_hat,

where the second term (AuxK) reconstructs the error, held constant, from the d_in / 2 largest latents among those that
are dead, so that their encoder and decoder directions move towards what the living latents miss. Then both remove the
part of each decoder gradient along its direction, take an Adam step and rescale the decoder directions to unit norm.

The reference costs six times the encoder's matrix product, nine with dead latents. The sparse step costs one, since
everything behind it touches only the selected latents.

Source: Gao et al. 2024, appendices A.2 (AuxK) and A.5 (decoder norm); Bricken et al. 2023 (gradient projection).
"""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train_sae.architectures import (
    Selection,
    Transposed,
    Weights,
    select_batch_topk,
    select_topk,
    transpose,
)
from train_sae.config import Architecture
from train_sae.state import TrainState

AUX_COEFFICIENT = 1 / 32


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step does, apart from its data."""

    arch: Architecture
    k: int
    dead_tokens: int
    aux_k: int
    """Dead latents that reconstruct the error of one token."""
    precision: torch.dtype = torch.float32
    """Precision of the encoder's matrix product."""
    threshold_rate: float = 0.01
    """Weight of the newest batch in the running mean of the smallest selected activation."""


class StepStats(NamedTuple):
    """What happened in a step; scalars stay on the device, so that reading them is the caller's decision."""

    mse: Float[Tensor, ""]
    """Mean over tokens of the squared error, summed over channels."""
    variance: Float[Tensor, ""]
    """Mean over tokens of the squared distance from the batch's mean."""
    aux: Float[Tensor, ""]
    """The auxiliary term, without its coefficient."""
    l0: Float[Tensor, ""]
    """Mean number of non-zero latents a token."""
    n_dead: Float[Tensor, ""]
    """Number of dead latents before the step."""
    threshold: Float[Tensor, ""]
    """Running mean of the smallest selected activation."""


def reference_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take one step by plain autograd on dense tensors: the definition of correct.

    Args:
        state: what the step changes; gradients are left in the weights' `grad`.
        x: normalised activations.
        settings: what the step does.
        lr: learning rate of this step.
    """
    w, dead = state.weights, state.dead(settings.dead_tokens)
    pre = F.linear((x - w.b_dec).to(settings.precision), w.enc.to(settings.precision), w.b_enc.to(settings.precision))
    if settings.arch == "topk":
        chosen = torch.zeros_like(pre).scatter(1, pre.topk(settings.k, sorted=False).indices, 1)
    else:
        order = pre.flatten().sort(descending=True, stable=True).indices
        chosen = torch.zeros_like(pre.flatten()).scatter(0, order[: settings.k * len(x)], 1).view_as(pre)
    f = (pre.relu() * chosen).to(x.dtype)
    error = x - (f @ w.dec + w.b_dec)
    mse = error.square().sum(1).mean()
    aux = mse.new_zeros(())
    if dead.any():
        best = pre[:, dead].topk(min(settings.aux_k, int(dead.sum())), sorted=False)
        f_dead = torch.zeros_like(pre[:, dead]).scatter(1, best.indices, best.values.relu()).to(x.dtype)
        aux = (error.detach() - f_dead @ w.dec[dead]).square().sum(1).mean()
    state.optimizer.zero_grad()
    (mse + AUX_COEFFICIENT * aux).backward()
    with torch.no_grad():
        assert w.dec.grad is not None, "backward gives every weight a gradient"
        w.dec.grad -= (w.dec.grad * w.dec).sum(1, keepdim=True) * w.dec
        state.optimizer.param_groups[0]["lr"] = lr
        state.optimizer.step()
        w.dec.div_(w.dec.norm(dim=1, keepdim=True))
        state.count((f > 0).any(0), len(x), f[f > 0], settings.threshold_rate)
        return _stats(state, x, mse.detach(), aux.detach(), (f > 0).sum(), dead)


@torch.no_grad()
def sparse_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take the same step as `reference_step` with one dense product, its gradients written by hand.

    With G = ∂loss/∂x_hat, a selected latent's pre-activation has the gradient G_t · W_dec[i] where it is positive.
    The decoder bias needs no product with the inputs, since it enters the encoder through x − b_dec only:
    ∂loss/∂b_dec = Σ_t G_t − W_enc ∂loss/∂b_enc.

    Args:
        state: what the step changes; gradients are left in the weights' `grad`.
        x: normalised activations.
        settings: what the step does.
        lr: learning rate of this step.
    """
    w, n_tokens = state.weights, x.shape[0]
    dead = state.dead(settings.dead_tokens)
    centred = x - w.b_dec
    pre = F.linear(centred.to(settings.precision), w.enc.to(settings.precision), w.b_enc.to(settings.precision))
    selection = (
        select_topk(pre, settings.k)
        if settings.arch == "topk"
        else select_batch_topk(pre, settings.k, state.threshold.to(pre))
    )
    selection = Selection(selection.offsets, selection.latents, selection.values.to(x))
    # x_hat − x: the decoder bias is in both and falls out.
    error = _decode(selection, w.dec) - centred
    grad_out = error * (2 / n_tokens)
    grads = _sparse_gradients(selection, w, centred, grad_out)
    grad_b_dec = grad_out.sum(0)

    aux = error.new_zeros(())
    dead_latents = dead.nonzero().squeeze(1)
    if dead_latents.numel():
        # Ranked among the dead latents only, then renumbered.
        picked = select_topk(pre.index_select(1, dead_latents), min(settings.aux_k, dead_latents.numel()))
        extra = Selection(picked.offsets, dead_latents.index_select(0, picked.latents), picked.values.to(x))
        aux_error = _decode(extra, w.dec) + error
        aux = aux_error.square().sum(1).mean()
        extra_grads = _sparse_gradients(extra, w, centred, aux_error * (2 * AUX_COEFFICIENT / n_tokens))
        grads = _Gradients(*(mine + other for mine, other in zip(grads, extra_grads, strict=True)))

    w.enc.grad, w.b_enc.grad = grads.enc, grads.b_enc
    w.dec.grad = grads.dec.sub_((grads.dec * w.dec).sum(1, keepdim=True) * w.dec)
    w.b_dec.grad = grad_b_dec - grads.b_enc @ w.enc
    state.optimizer.param_groups[0]["lr"] = lr
    state.optimizer.step()
    w.dec.div_(w.dec.norm(dim=1, keepdim=True))

    active = selection.values > 0
    fired = torch.zeros_like(dead).index_fill_(0, selection.latents[active], True)
    state.count(fired, n_tokens, selection.values[active], settings.threshold_rate)
    return _stats(state, x, error.square().sum(1).mean(), aux, active.sum(), dead)


class _Gradients(NamedTuple):
    enc: Float[Tensor, "d_sae d_in"]
    dec: Float[Tensor, "d_sae d_in"]
    b_enc: Float[Tensor, " d_sae"]


def _sparse_gradients(
    selection: Selection,
    weights: Weights,
    centred: Float[Tensor, "token d_in"],
    grad_out: Float[Tensor, "token d_in"],
) -> _Gradients:
    """Gradients of a loss whose gradient by the decoded selection is `grad_out`."""
    d_sae = weights.b_enc.shape[0]
    index = transpose(selection, d_sae)
    grad_pre = _dot_selected(selection, grad_out, weights.dec) * (selection.values > 0)
    return _Gradients(
        enc=_sum_per_latent(index, grad_pre, centred),
        dec=_sum_per_latent(index, selection.values, grad_out),
        b_enc=_sum_per_latent(index, grad_pre, grad_pre.new_ones(len(centred), 1)).squeeze(1),
    )


def _decode(selection: Selection, dec: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "token d_in"]:
    """Sum the selected decoder directions of each token, weighted by the latent activations."""
    return F.embedding_bag(
        selection.latents,
        dec,
        selection.offsets,
        mode="sum",
        per_sample_weights=selection.values,
        include_last_offset=True,
    )


def _sum_per_latent(
    index: Transposed, coefficients: Float[Tensor, " nnz"], rows: Float[Tensor, "token width"]
) -> Float[Tensor, "d_sae width"]:
    """Sum the rows of the tokens at which each latent is selected, weighted by the selection's coefficients."""
    return F.embedding_bag(
        index.tokens,
        rows,
        index.offsets,
        mode="sum",
        per_sample_weights=coefficients.index_select(0, index.order),
        include_last_offset=True,
    )


def _dot_selected(
    selection: Selection, rows: Float[Tensor, "token d_in"], dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, " nnz"]:
    """Take the dot products of each token's row with the decoder directions that it selected, and no others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            selection.offsets,
            selection.latents,
            torch.zeros_like(selection.values),
            size=(rows.shape[0], dec.shape[0]),
            check_invariants=False,
        )
        return torch.sparse.sampled_addmm(pattern, rows, dec.T, beta=0.0).values()


def _stats(
    state: TrainState,
    x: Float[Tensor, "token d_in"],
    mse: Float[Tensor, ""],
    aux: Float[Tensor, ""],
    n_active: Int[Tensor, ""],
    dead: Bool[Tensor, " d_sae"],
) -> StepStats:
    return StepStats(
        mse=mse,
        variance=(x - x.mean(0)).square().sum(1).mean(),
        aux=aux,
        l0=n_active / float(len(x)),
        n_dead=dead.sum().to(mse),
        threshold=state.threshold.to(mse),
    )
