"""Expected-norm normalisation: measured on the train videos, folded into the weights at export.

The trainer sees `scale * x` with the scale chosen such that the expected norm is sqrt(d_in): learning rates and the
auxiliary loss then mean the same for every model and site. The exported SAE takes the raw residual.

Source: Anthropic, circuits update of April 2024; SAELens calls it `expected_average_only_in`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from collect.errors import UserError
from train_sae.architectures import Weights


@dataclass(frozen=True)
class Normalisation:
    """What the trainer does to its input: multiply it by `scale`."""

    scale: float
    mean: Float[Tensor, " d_in"]
    """Mean of the raw input, float64; `scale * mean` is the initial decoder bias."""


def measure(chunks: Iterable[Float[Tensor, "_ d_in"]]) -> Normalisation:
    """Measure the mean and the expected norm of raw activations, in float64.

    Raises:
        UserError: the activations are all zero or not finite, so that they have no scale.
    """
    n, total, norms = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.double()
        n += rows.shape[0]
        total = total + rows.sum(0)
        norms = norms + rows.norm(dim=1).sum()
    assert n, "there is at least one train token"
    mean_norm = float(norms) / n
    if not 0 < mean_norm < float("inf"):
        raise UserError(
            f"The activations have the mean norm {mean_norm}, so nothing can be learnt from them: "
            "collect them again, and with --dtype float32 if they overflowed."
        )
    return Normalisation(scale=total.shape[0] ** 0.5 / mean_norm, mean=total / n)


def fold(weights: Weights, scale: float) -> Weights:
    """Rewrite weights that expect `scale * x` so that they take x and reconstruct x.

    The latent activations stay the same; decoder norms become 1 / scale.
    """
    return replace(weights, enc=weights.enc * scale, dec=weights.dec / scale, b_dec=weights.b_dec / scale)
