"""Matching pursuit: how that architecture encodes, in training and afterwards."""

import torch
from jaxtyping import Float
from torch import Tensor


def pursue(
    residual: Float[Tensor, "token d_in"],
    dec: Float[Tensor, "d_sae d_in"],
    residual_threshold: float,
    max_iterations: int,
) -> Float[Tensor, "token d_sae"]:
    """Latent activations of matching pursuit, differentiable.

    In each round a token subtracts from its residual what the best-fitting decoder direction explains. It stops after
    `max_iterations` rounds, below a norm of the residual, or when a round adds no new latent.

    Args:
        residual: what should be explained, without the decoder bias.
        dec: decoder directions of unit norm.
        residual_threshold: norm of the residual at which a token is finished.
        max_iterations: rounds.

    Source: Costa et al. 2025 ("From flat to hierarchical: extracting sparse representations with matching pursuit").
    """
    acts = torch.zeros(residual.shape[0], dec.shape[0], device=dec.device, dtype=residual.dtype)
    support = torch.zeros_like(acts, dtype=torch.bool)
    done = torch.zeros(residual.shape[0], dtype=torch.bool, device=dec.device)
    # Every round but the last adds a latent, so there cannot be more.
    for _ in range(min(max_iterations, dec.shape[0] + 1)):
        best = (residual.detach() @ dec.detach().T).argmax(dim=1)
        chosen = dec[best]
        values = (residual * chosen).sum(1).relu() * ~done
        acts = acts.scatter_add(1, best.unsqueeze(1), values.unsqueeze(1))
        residual = residual - values.unsqueeze(1) * chosen
        with torch.no_grad():
            done = done | ((acts != 0) == support).all(dim=1)
            support = acts != 0
            if residual_threshold > 0:
                done = done | (residual.norm(dim=1) < residual_threshold)
    return acts
