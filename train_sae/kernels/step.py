"""The step of the TopK family on a GPU: the sparse step's mathematics in kernels, without a gradient in memory.

The gradients of both matrices, the greater part of a step's memory, live in registers, where Adam's step is taken on
them at once (`backward`); only where they have to be clipped together they are written down. Nothing here waits for
the device, but for a count at the first step (`dead`). What the CUDA step keeps between steps follows from the state,
so checkpoints know nothing of it.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train_sae.kernels.auxk import dead_gradients
from train_sae.kernels.backward import (
    Adam,
    Batch,
    Biases,
    Extra,
    Index,
    Moments,
    direction_gradients,
    index_by_latent,
    update_directions,
)
from train_sae.kernels.dead import DeadBound
from train_sae.kernels.decode import decode_residuals, prefix_bounds, prefix_rows
from train_sae.kernels.select import select_batch_topk, select_topk
from train_sae.settings import StepSettings, StepStats
from train_sae.state import TrainState
from train_sae.update import Outcome, record, smallest_positive, update


def kernel_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take the same step as `reference_step`.

    The matrices' gradients are left in `grad` only where they are clipped.

    Args:
        state: what the step changes; its weights are float32.
        x: normalised activations, float32.
        settings: what the step does; one of the TopK family, by one process, in float32 or bfloat16.
        lr: learning rate of this step.
    """
    with torch.no_grad(), torch.cuda.device_of(x):  # Triton launches on the current device
        return _step(state, x, settings, lr)


def _step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    w, (n_tokens, d_in), d_sae = state.weights, x.shape, state.weights.dec.shape[0]
    memory = _memory_of(state)
    state.optimizer.zero_grad()
    state.set_adam(lr, settings.options)
    dead = state.dead(settings.dead_tokens)
    n_dead_at_most = memory.dead_bound.at(state, settings.dead_tokens, n_tokens)
    centred = x - w.b_dec
    inputs = centred.to(settings.precision)
    pre = F.linear(inputs, memory.encoder(state, settings.precision), w.b_enc.to(settings.precision))
    entries = (
        select_topk(pre, min(settings.k, d_sae)) if settings.arch == "topk" else select_batch_topk(pre, settings.k)
    )
    widths = settings.widths(d_sae, state.step)
    residuals = x.new_empty(len(widths) * n_tokens, d_in)
    bounds = prefix_bounds(entries, widths, n_tokens)
    mse = decode_residuals(bounds, entries.latents, entries.values, w.dec, centred, residuals)
    scale = 2 / n_tokens
    aux, extra = mse.new_zeros(()), None
    if n_dead_at_most:
        coefficient = settings.options.aux_loss_coefficient
        of_errors = Batch(centred, residuals[-n_tokens:], scale * coefficient)
        aux, extra = dead_gradients(pre, dead, n_dead_at_most, settings.aux_k, of_errors, w.dec)
    rows = prefix_rows(entries, widths, n_tokens)
    index = index_by_latent(entries.latents, rows, entries.values, d_sae)
    # Every entry is positive, so a latent that has one has fired.
    outcome = Outcome(
        mse, aux, torch.zeros_like(mse), entries.offsets[-1], index.offsets.diff() > 0,
        smallest_positive(entries.values), dead,
    )  # fmt: skip
    batch = Batch(inputs, residuals, scale)
    if settings.options.clip_grad_norm is None:
        biases = _update_directions(state, index, batch, extra, lr, memory.shadow(state, settings.precision))
    else:
        w.enc.grad, w.dec.grad = torch.empty_like(w.enc), torch.empty_like(w.dec) if w.dec.requires_grad else None
        dec = w.dec if w.dec.grad is None else (w.dec, w.dec.grad)
        biases = direction_gradients(index, batch, (w.enc, w.enc.grad), dec, extra)
    w.b_enc.grad = biases.b_enc
    w.b_dec.grad = residuals[:n_tokens].sum(0).mul_(scale) - biases.through_encoder
    if settings.options.clip_grad_norm is not None:
        return update(state, x, settings, lr, outcome)
    state.optimizer.step()  # of the biases, which alone have gradients
    stats = record(state, x, settings, outcome)
    memory.shadow_is_new(state)
    return stats


def _update_directions(
    state: TrainState, index: Index, batch: Batch, extra: Extra | None, lr: float, shadow: Tensor | None
) -> Biases:
    """Take Adam's step on the matrices."""
    group, t = state.optimizer.param_groups[0], state.step + 1
    beta1, beta2 = group["betas"]
    adam = Adam(lr / (1 - beta1**t), math.sqrt(1 - beta2**t), 1 - beta1, 1 - beta2, group["eps"])
    w = state.weights
    enc, dec = _moments(state, w.enc), _moments(state, w.dec) if w.dec.requires_grad else w.dec
    return update_directions(index, batch, enc, dec, shadow, adam, extra)


def _moments(state: TrainState, weight: Float[Tensor, "d_sae d_in"]) -> Moments:
    """The moments of a matrix, which is about to take a step, as torch's Adam keeps them."""
    kept: dict[str, Any] = state.optimizer.state[weight]
    if not kept:
        kept["step"] = torch.zeros((), dtype=torch.float32, device=weight.device)
        kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
    kept["step"] += 1
    return Moments(weight, kept["exp_avg"], kept["exp_avg_sq"])


class _Memory:
    """What is kept between the steps of a training."""

    def __init__(self) -> None:
        self.dead_bound = DeadBound()
        self._shadow: Tensor | None = None
        self._shadow_step: int | None = None

    def __deepcopy__(self, _: dict[int, Any]) -> "_Memory":
        return _Memory()

    def shadow(self, state: TrainState, precision: torch.dtype) -> Tensor | None:
        """Where the encoder's copy in another precision is kept, whatever it holds; None for its own precision."""
        enc = state.weights.enc
        if precision == enc.dtype:
            return None
        if self._shadow is None or self._shadow.dtype != precision:
            self._shadow, self._shadow_step = torch.empty_like(enc, dtype=precision), None
        return self._shadow

    def encoder(self, state: TrainState, precision: torch.dtype) -> Tensor:
        """The encoder in a precision."""
        shadow = self.shadow(state, precision)
        if shadow is None:
            return state.weights.enc
        if self._shadow_step != state.step:
            shadow.copy_(state.weights.enc)
        return shadow

    def shadow_is_new(self, state: TrainState) -> None:
        """Say that the encoder was copied when it changed; after any other step it is copied anew."""
        self._shadow_step = state.step


def _memory_of(state: TrainState) -> _Memory:
    if not isinstance(state.memory, _Memory):
        state.memory = _Memory()
    return state.memory
