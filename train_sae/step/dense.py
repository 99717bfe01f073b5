"""Losses of the architectures that activate any number of latents, in plain autograd: the definition of correct.

They are SAELens's, with decoder directions of unit norm: `standard` (ReLU with an L1 penalty), `gated`, `jumprelu` with
its three penalties, and matching pursuit. These have no faster step: their gradients are dense.

Source: Bricken et al. 2023 (standard); Rajamanoharan et al. 2024a, section 3.2 (gated); Rajamanoharan et al. 2024b,
equations 9-12 (jumprelu); Costa et al. 2025 (matching pursuit); sae_lens 6.54, `saes/`.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train_sae.step.architectures import Weights
from train_sae.step.linear import linear
from train_sae.step.pursuit import pursue
from train_sae.step.settings import StepSettings


class Losses(NamedTuple):
    """The terms of a loss, and the latent activations."""

    total: Float[Tensor, ""]
    """What is minimised."""
    mse: Float[Tensor, ""]
    aux: Float[Tensor, ""]
    sparsity: Float[Tensor, ""]
    f: Float[Tensor, "token d_sae"]


def encode_dense(w: Weights, x: Float[Tensor, "token d_in"], precision: torch.dtype) -> Float[Tensor, "token d_sae"]:
    """Pre-activations, their matrix product taken in a precision."""
    return linear((x - w.b_dec).to(precision), w.enc.to(precision), w.b_enc.to(precision)).to(x)


def decode_dense(w: Weights, f: Float[Tensor, "token d_sae"]) -> Float[Tensor, "token d_in"]:
    """Reconstructions."""
    return linear(f, w.dec.T, w.b_dec)


def mean_square(error: Float[Tensor, "token d_in"]) -> Float[Tensor, ""]:
    """Mean over tokens of the squared norm."""
    return error.square().sum(1).mean()


def warmed_up(coefficient: float, step: int, warm_up_steps: int) -> float:
    """A coefficient that rises linearly from zero over the warm-up."""
    return coefficient * min(1.0, step / warm_up_steps) if warm_up_steps > 0 else coefficient


def standard(w: Weights, x: Float[Tensor, "token d_in"], settings: StepSettings, step: int) -> Losses:
    """ReLU with a penalty on the norm of each token's latent activations."""
    options = settings.options
    f = encode_dense(w, x, settings.precision).relu()
    mse = mean_square(x - decode_dense(w, f))
    weight = warmed_up(options.l1_coefficient, step, options.l1_warm_up_steps)
    sparsity = weight * f.norm(p=options.lp_norm, dim=1).mean()
    return Losses(mse + sparsity, mse, torch.zeros_like(mse), sparsity, f)


def gated(w: Weights, x: Float[Tensor, "token d_in"], settings: StepSettings, step: int) -> Losses:
    """Gates decide which latents are active, magnitudes how strongly; the gates learn by reconstructing alone."""
    assert w.b_mag is not None, "gated weights have magnitudes"
    assert w.r_mag is not None, "gated weights have magnitudes"
    options = settings.options
    product = linear((x - w.b_dec).to(settings.precision), w.enc.to(settings.precision)).to(x)
    gate = product + w.b_enc
    f = (gate > 0) * (product * w.r_mag.exp() + w.b_mag).relu()
    mse = mean_square(x - decode_dense(w, f))
    aux = mean_square(x - decode_dense(w, gate.relu()))
    sparsity = warmed_up(options.l1_coefficient, step, options.l1_warm_up_steps) * gate.relu().sum(1).mean()
    return Losses(mse + aux + sparsity, mse, aux, sparsity, f)


def jumprelu(
    w: Weights, x: Float[Tensor, "token d_in"], settings: StepSettings, step: int, dead: Bool[Tensor, " d_sae"]
) -> Losses:
    """A learnt threshold for each latent, with its gradient estimated in a window around it."""
    assert w.threshold is not None, "jumprelu weights have thresholds"
    options = settings.options
    pre = encode_dense(w, x, settings.precision)
    window = (options.jumprelu_bandwidth, options.jumprelu_ste_to_input)
    f = _JumpReLU.apply(pre, w.threshold, *window)
    mse = mean_square(x - decode_dense(w, f))
    weight = warmed_up(options.l0_coefficient, step, options.l0_warm_up_steps)
    if options.jumprelu_sparsity_loss_mode == "tanh":
        penalty = (options.jumprelu_tanh_scale * f).tanh().sum(1)
    else:
        penalty = _Step.apply(pre, w.threshold, *window).sum(1)
        if options.jumprelu_sparsity_loss_mode == "quadratic":
            target = options.target_l0 or float(settings.k)
            penalty = 2 / target * (penalty - target).square()
    sparsity = weight * penalty.mean()
    aux = torch.zeros_like(mse)
    if options.pre_act_loss_coefficient is not None:
        aux = ((w.threshold - pre).relu() * dead).sum(1).mean()
    return Losses(mse + sparsity + (options.pre_act_loss_coefficient or 0.0) * aux, mse, aux, sparsity, f)


def matching_pursuit(w: Weights, x: Float[Tensor, "token d_in"], settings: StepSettings) -> Losses:
    """Latents explain the residual one after another; gradients pass through all of them."""
    f = pursue(x - w.b_dec, w.dec, settings.options.residual_threshold, settings.k)
    mse = mean_square(x - decode_dense(w, f))
    return Losses(mse, mse, torch.zeros_like(mse), torch.zeros_like(mse), f)


def _window(pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
    distance = (pre - threshold) / bandwidth
    return ((distance > -0.5) & (distance < 0.5)).to(pre)


class _JumpReLU(torch.autograd.Function):
    """pre where it is above the threshold, else zero."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.ste_to_input = bandwidth, ste_to_input
        return pre * (pre > threshold)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        estimate = threshold / ctx.bandwidth * _window(pre, threshold, ctx.bandwidth) * grad
        by_pre = (pre > threshold) * grad
        return by_pre + estimate if ctx.ste_to_input else by_pre, -estimate.sum(0), None, None


class _Step(torch.autograd.Function):
    """One where pre is above the threshold, else zero."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float, ste_to_input: bool) -> Tensor:
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth, ctx.ste_to_input = bandwidth, ste_to_input
        return (pre > threshold).to(pre)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        pre, threshold = ctx.saved_tensors
        estimate = _window(pre, threshold, ctx.bandwidth) / ctx.bandwidth * grad
        return estimate if ctx.ste_to_input else None, -estimate.sum(0), None, None
