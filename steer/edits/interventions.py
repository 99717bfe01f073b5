"""Interventions on latents as changes of the residual stream: pure functions of tensors.

Every intervention keeps the SAE's error: the new residual is x' = x + (f'_j - f_j) W_dec[j], never a reconstruction, so
that an effect belongs to the latent and not to what the SAE leaves out. Where f'_j = f_j the change is exactly zero.

Source: the identity x' = x_hat' + (x - x_hat) for a decoder that is affine in f.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steer.edits.operations import MAX_ADD_STRENGTH, Operation


def ablate(f: Float[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Set a latent's activations to zero."""
    return torch.zeros_like(f)


def scale(f: Float[Tensor, " token"], factor: float) -> Float[Tensor, " token"]:
    """Multiply a latent's activations."""
    return f * factor


def clamp(f: Float[Tensor, " token"], value: float) -> Float[Tensor, " token"]:
    """Set a latent's activations to one value where it fires, and leave it silent elsewhere."""
    return torch.where(f != 0, torch.full_like(f, value), f)


def add(
    f: Float[Tensor, " token"], strength: float, median_norm: float, decoder_norm: float
) -> Float[Tensor, " token"]:
    """Raise a latent on every token by the amount that changes the residual by `strength` median norms.

    Args:
        f: activations of the latent.
        strength: norm of the change in multiples of `median_norm`, at most 0.5 in size; negative to subtract.
        median_norm: median norm of the residuals at the site.
        decoder_norm: norm of the latent's decoder direction.
    """
    assert 0 < abs(strength) <= MAX_ADD_STRENGTH, f"an added norm of {strength} median norms leaves the data's range"
    return f + strength * median_norm / decoder_norm


def edited(
    f: Float[Tensor, " token"],
    operation: Operation,
    *,
    clamp_value: float,
    median_norm: float,
    decoder_norm: float,
    swapped: Float[Tensor, " token"] | None = None,
) -> Float[Tensor, " token"]:
    """Apply an operation to the activations of one latent.

    Args:
        f: activations of the latent on the tokens in scope.
        operation: what to do.
        clamp_value: the value that `clamp` sets (the quantile of the latent's active values that it names).
        median_norm: median norm of the residuals at the site, for `add`.
        decoder_norm: norm of the latent's decoder direction, for `add`.
        swapped: activations of the latent on the corresponding tokens of another video, for `swap`.
    """
    if operation.kind == "swap":
        assert swapped is not None, "a swap needs the other video's activations"
        return swapped
    if operation.kind == "ablate":
        return ablate(f)
    if operation.kind == "scale":
        return scale(f, operation.strength)
    if operation.kind == "clamp":
        return clamp(f, clamp_value)
    assert operation.kind == "add", operation
    return add(f, operation.strength, median_norm, decoder_norm)


def residual_change(
    before: Float[Tensor, "token latent"], after: Float[Tensor, "token latent"], decoder: Float[Tensor, "latent d_in"]
) -> Float[Tensor, "token d_in"]:
    """Return what to add to the residual when some latents change together: sum over j of (f'_j - f_j) W_dec[j]."""
    return (after - before) @ decoder
