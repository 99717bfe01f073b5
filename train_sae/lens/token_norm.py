"""Normalisations of SAELens that depend on each token: what the encoder reads, and how the output is undone.

A token x is read as (x − shift) / divisor, and a reconstruction y becomes y · scale + shift.

Source: sae_lens 6.54, `saes/sae.py` (`_setup_activation_normalization`).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

TokenNorm = Literal["none", "layer_norm", "constant_norm_rescale"]

_EPSILON = 1e-5


def normalised(x: Float[Tensor, "token d_in"], norm: TokenNorm) -> Float[Tensor, "token d_in"]:
    """What the encoder reads.

    Args:
        x: raw residuals.
        norm: `layer_norm` subtracts the mean of the token's dimensions and divides by their deviation;
            `constant_norm_rescale` scales the token to the norm √d_in.
    """
    if norm == "layer_norm":
        return (x - x.mean(1, keepdim=True)) / (_deviation(x) + _EPSILON)
    return x if norm == "none" else x / _scale_of_norm(x)


def scale_and_shift(
    x: Float[Tensor, "token d_in"], norm: TokenNorm
) -> tuple[Float[Tensor, "token 1"], Float[Tensor, "token 1"]]:
    """The factor for a reconstruction of each token, and what is then added to all its dimensions."""
    ones, zeros = torch.ones_like(x[:, :1]), torch.zeros_like(x[:, :1])
    if norm == "layer_norm":
        return _deviation(x), x.mean(1, keepdim=True)
    return (ones if norm == "none" else _scale_of_norm(x)), zeros


def _deviation(x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token 1"]:
    return x.std(1, keepdim=True)


def _scale_of_norm(x: Float[Tensor, "token d_in"]) -> Float[Tensor, "token 1"]:
    return x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny) / x.shape[1] ** 0.5
