"""The part of a step after the gradients: projection, clipping, Adam, the constraints on the weights, the counters.

It is the same for the reference and the sparse step.

Source: Gao et al. 2024, appendix A.5 (decoder norm); Bricken et al. 2023 (gradient projection); Kingma and Ba 2015.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train_sae.step.settings import StepSettings, StepStats
from train_sae.step.state import TrainState

_LONGEST_DOT = 2**30
"""torch's product of two vectors counts in 32 bits."""


class Outcome(NamedTuple):
    """What a step found before it changes the weights."""

    mse: Float[Tensor, ""]
    aux: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    n_active: Int[Tensor, ""]
    """Non-zero latent activations in the batch."""
    fired: Bool[Tensor, " d_sae"]
    """Latents active at one of its tokens."""
    smallest: Float[Tensor, ""]
    """The smallest positive latent activation; infinite if there is none."""
    dead: Bool[Tensor, " d_sae"]
    """Latents that were dead before the step."""


@torch.no_grad()
def update(
    state: TrainState,
    x: Float[Tensor, "token d_in"],
    settings: StepSettings,
    lr: float,
    outcome: Outcome,
    along: Float[Tensor, " d_sae"] | None = None,
) -> StepStats:
    """Change the weights by their gradients, then the counters.

    Args:
        state: what the step changes; the trained weights have their gradients in `grad`.
        x: normalised activations.
        settings: what the step does.
        lr: learning rate of this step.
        outcome: what the step found.
        along: dot product of each decoder direction with its gradient, if it is known already.
    """
    dec, options, group = state.weights.dec, settings.options, settings.group
    if dec.grad is not None:
        if along is None:
            # A batched product of rows, because the sum of an elementwise product would write a matrix first.
            along = torch.bmm(dec.grad.unsqueeze(1), dec.unsqueeze(2)).flatten()
        dec.grad.addcmul_(dec, along.unsqueeze(1), value=-1)
    grads = {name: weight.grad for name, weight in state.trained.items() if weight.grad is not None}
    group.average_(grads.values())
    divisor = None
    if options.clip_grad_norm is not None:
        squares = {name: _square(grad) for name, grad in grads.items()}
        shared = squares.pop("b_dec", torch.zeros_like(outcome.mse))
        norm = (group.sum_shards(torch.stack(list(squares.values())).sum()) + shared).sqrt()
        divisor = ((norm + 1e-6) / options.clip_grad_norm).clamp(min=1.0)
    state.set_adam(lr, options, divisor)
    state.optimizer.step()
    if dec.requires_grad:
        dec.div_(dec.norm(dim=1, keepdim=True))
    if state.weights.threshold is not None:
        state.weights.threshold.clamp_(min=0.0)
    center = x.mean(0)
    group.average_([center])
    return record(state, settings, outcome, len(x), mean_square(x - center))


@torch.no_grad()
def record(
    state: TrainState, settings: StepSettings, outcome: Outcome, n_tokens: int, variance: Float[Tensor, ""]
) -> StepStats:
    """Update the average of the weights and the counters, and return what happened.

    Args:
        state: after its weights have changed.
        settings: what the step does.
        outcome: what the step found.
        n_tokens: tokens of this process's batch.
        variance: mean over them of the squared distance from the mean of all processes' tokens.
    """
    options, group = settings.options, settings.group
    if state.average is not None:
        assert options.ema_decay is not None, "a state with an average is trained with a decay"
        for name, weight in state.trained.items():
            state.average[name].lerp_(weight, 1 - options.ema_decay)
    group.unite_(outcome.fired)
    state.count(outcome.fired, n_tokens * group.n_data, group.minimum(outcome.smallest), settings.threshold_rate)
    n_dead = outcome.dead.sum().to(variance)
    l0, n_dead = group.sum_shards(torch.stack([outcome.n_active / float(n_tokens), n_dead]))
    means = torch.stack([outcome.mse, variance, outcome.aux, outcome.sparsity, l0])
    group.average_([means])
    mse, variance, aux, sparsity, l0 = means
    return StepStats(mse, variance, aux, l0, n_dead, state.threshold.to(mse), sparsity)


def mean_square(error: Float[Tensor, "token d_in"]) -> Float[Tensor, ""]:
    """Mean over tokens of the squared norm, without a gradient."""
    return _square(error) / error.shape[0]


def smallest_positive(values: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """The smallest value above zero; infinite if there is none."""
    infinite = values.new_full((1,), torch.inf)
    return torch.cat([infinite, torch.where(values > 0, values, torch.inf).flatten()]).min()


def _square(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Sum of the squares; the sum of an elementwise product would write a tensor first."""
    total = tensor.new_zeros(())
    for part in tensor.flatten().split(_LONGEST_DOT):
        total = total + torch.dot(part, part)
    return total
