"""The reference step: plain autograd on dense tensors, the definition of correct.

The TopK family minimises, over the batch of normalised activations x,

    Σ_w mean_t ‖x_t − x_hat_t(w)‖²  +  c · mean_t ‖e_t − e_hat_t‖²,      x_hat(w) = f[:w] W_dec[:w] + b_dec,

summed over the widths w of the Matryoshka prefixes, or for w = d_sae only. The second term (AuxK, with c the option
`aux_loss_coefficient`) reconstructs the error e = x − x_hat(d_sae), held constant, from the d_in / 2 largest latents
among those that are dead, so their encoder and decoder directions move towards what the living latents miss. It has no
decoder bias, since e has none.

It costs six times the encoder's matrix product, or nine times with dead latents.

Source: Gao et al. 2024, appendix A.2 (AuxK); Bussmann et al. 2024 (BatchTopK), 2025 (Matryoshka).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train_sae.step.dense import Losses, gated, jumprelu, matching_pursuit, mean_square, standard
from train_sae.step.settings import StepSettings, StepStats
from train_sae.step.state import TrainState
from train_sae.step.update import Outcome, smallest_positive, update


def reference_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take one step by plain autograd.

    Args:
        state: what the step changes; gradients are left in the weights' `grad`.
        x: normalised activations.
        settings: what the step does.
        lr: learning rate of this step.
    """
    dead = state.dead(settings.dead_tokens)
    state.optimizer.zero_grad()
    losses = loss(state, x, settings, dead)
    losses.total.backward()
    f = losses.f.detach()
    found = (losses.mse.detach(), losses.aux.detach(), losses.sparsity.detach())
    outcome = Outcome(*found, (f > 0).sum(), (f > 0).any(0), smallest_positive(f), dead)
    return update(state, x, settings, lr, outcome)


def loss(
    state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, dead: Bool[Tensor, " d_sae"]
) -> Losses:
    """The loss of a batch, differentiable by the weights."""
    match settings.arch:
        case "standard":
            return standard(state.weights, x, settings, state.step)
        case "gated":
            return gated(state.weights, x, settings, state.step)
        case "jumprelu":
            return jumprelu(state.weights, x, settings, state.step, dead)
        case "matching_pursuit":
            return matching_pursuit(state.weights, x, settings)
        case "topk" | "batchtopk" | "matryoshka_batchtopk" | "frozen_decoder":
            return _topk_family(state, x, settings, dead)


def _topk_family(
    state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, dead: Bool[Tensor, " d_sae"]
) -> Losses:
    w = state.weights
    precision = settings.precision
    pre = F.linear((x - w.b_dec).to(precision), w.enc.to(precision), w.b_enc.to(precision)).to(x)
    if settings.arch == "topk":
        chosen = torch.zeros_like(pre).scatter(1, _order(pre)[:, : settings.k], 1)
    else:
        flat = pre.flatten()
        chosen = torch.zeros_like(flat).scatter(0, _order(flat)[: settings.k * len(x)], 1).view_as(pre)
    f = pre.relu() * chosen
    widths = settings.widths(f.shape[1], state.step)
    errors = [x - (f[:, :width] @ w.dec[:width] + w.b_dec) for width in widths]
    total = torch.stack([mean_square(error) for error in errors]).sum()
    mse = mean_square(errors[-1])
    aux = mse.new_zeros(())
    if dead.any():
        among = torch.zeros_like(pre[:, dead]).scatter(1, _order(pre[:, dead])[:, : settings.aux_k], 1)
        aux = mean_square(errors[-1].detach() - (pre[:, dead].relu() * among) @ w.dec[dead])
    return Losses(total + settings.options.aux_loss_coefficient * aux, mse, aux, torch.zeros_like(mse), f)


def _order(values: Float[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Indices from the largest value to the smallest along the last axis, the first of equal ones first."""
    return values.detach().sort(dim=-1, descending=True, stable=True).indices
