"""How well an SAE reconstructs and how it uses its latents, over a whole set of tokens.

Everything is accumulated over the set in float64 and divided at the end; no number is a mean of ratios per batch.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train_sae.sae import Sae

DENSE_RATE = 0.1


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of an SAE on a set of tokens."""

    n_tokens: int
    fvu: float
    """Fraction of variance unexplained: Σ‖x − x_hat‖² / Σ‖x − mean(x)‖², with the mean of the set."""
    explained_variance: float
    """1 − FVU."""
    l0: float
    """Mean number of active latents a token."""
    n_dead: int
    """Latents that are active at no token of the set."""
    n_dense: int
    """Latents that are active at more than a tenth of the tokens."""
    cosine: float
    """Mean cosine between x and x_hat."""
    relative_bias: float
    """Mean ‖x_hat‖² / mean x·x_hat: below 1 where reconstructions shrink, 1 where they are unbiased."""


def evaluate(sae: Sae, chunks: Iterable[Float[Tensor, "_ d_in"]]) -> tuple[Quality, Float[Tensor, " d_sae"]]:
    """Encode and decode tokens and summarise.

    Args:
        sae: on the device where the work is to be done.
        chunks: raw residuals, on any device; at least one token.

    Returns:
        The quality, and the firing rate of each latent (share of tokens at which it is active), float64.
    """
    # About b_dec, which lies near the mean, so that the variance is not a difference of large numbers.
    centre = sae.b_dec.double()
    n_tokens, total = 0, torch.zeros_like(centre)
    fired = torch.zeros(sae.d_sae, dtype=torch.int64, device=centre.device)
    sums = dict.fromkeys(
        ("spread", "error", "cosine", "norm", "product"), torch.zeros((), dtype=torch.float64).to(centre)
    )
    for chunk in chunks:
        codes = sae.encode_sparse(chunk)
        x, x_hat = chunk.to(centre), sae.decode_sparse(codes).double()
        n_tokens += x.shape[0]
        total += (x - centre).sum(0)
        fired += torch.bincount(codes.indices, minlength=sae.d_sae)
        batch = {
            "spread": (x - centre).square().sum(),
            "error": (x - x_hat).square().sum(),
            "cosine": F.cosine_similarity(x, x_hat, dim=1).sum(),
            "norm": x_hat.square().sum(),
            "product": (x * x_hat).sum(),
        }
        sums = {name: value + batch[name] for name, value in sums.items()}
    assert n_tokens, "there is at least one token to evaluate on"
    variance = float(sums["spread"] - total.square().sum() / n_tokens)
    fvu = float(sums["error"]) / variance if variance > 0 else float("nan")
    quality = Quality(
        n_tokens=n_tokens,
        fvu=fvu,
        explained_variance=1 - fvu,
        l0=int(fired.sum()) / n_tokens,
        n_dead=int((fired == 0).sum()),
        n_dense=int((fired > DENSE_RATE * n_tokens).sum()),
        cosine=float(sums["cosine"]) / n_tokens,
        relative_bias=float(sums["norm"] / sums["product"]),
    )
    return quality, fired.double().cpu() / n_tokens
