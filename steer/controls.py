"""Controls: other directions on the same tokens with the same norms.

A latent's effect means little by itself, since any change of the residual moves the answer. Three families of
directions say how much: isotropic random ones, random ones with the covariance of the activations at the site, and the
decoder directions of other latents that fire about as often and about as strongly. Pure functions of tensors; the
caller passes the generator.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

FAMILIES = ("random", "covariance", "decoder")
"""`decoder`: latents matched in firing rate and strength.

A frozen-decoder SAE's latents have random decoder directions, so on the same tokens they are the family `random`.
"""


def unit(directions: Float[Tensor, "n d_in"]) -> Float[Tensor, "n d_in"]:
    """Scale every direction to norm 1."""
    return directions / directions.norm(dim=-1, keepdim=True)


def random_directions(n: int, d_in: int, generator: torch.Generator) -> Float[Tensor, "n d_in"]:
    """Draw unit directions uniformly from the sphere."""
    return unit(torch.randn(n, d_in, generator=generator))


def covariance_directions(
    n: int, sample: Float[Tensor, "token d_in"], generator: torch.Generator
) -> Float[Tensor, "n d_in"]:
    """Draw unit directions from a Gaussian with the covariance of a sample of activations.

    A Gaussian combination of the centred rows has the sample's covariance, which is never formed.
    """
    centred = sample - sample.mean(dim=0)
    weights = torch.randn(n, len(sample), generator=generator)
    return unit(weights @ centred)


def matched_latents(
    n: int,
    target: int,
    firing_rate: Float[Tensor, " d_sae"],
    strength: Float[Tensor, " d_sae"],
    exclude: Int[Tensor, " excluded"],
) -> Int[Tensor, " matched"]:
    """Return the latents nearest to a target in log firing rate and log mean norm of what they write.

    Args:
        n: number of latents; fewer come back where fewer are alive.
        target: latent to match.
        firing_rate: share of tokens on which each latent fires.
        strength: mean activation times decoder norm of each latent on the tokens where it fires.
        exclude: latents that may not be chosen, the target among them.
    """
    eligible = (firing_rate > 0) & (strength > 0)
    eligible[exclude] = False
    candidates = eligible.nonzero()[:, 0]
    log_rate, log_strength = firing_rate.clamp_min(1e-12).log(), strength.clamp_min(1e-12).log()
    distance = (log_rate[candidates] - log_rate[target]).abs() + (log_strength[candidates] - log_strength[target]).abs()
    return candidates[torch.argsort(distance, stable=True)[:n]]


def random_signs(n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    """Draw n signs; a control stands for an ablation and for an amplification alike."""
    return torch.randint(0, 2, (n,), generator=generator).to(torch.float32) * 2 - 1


def matched_change(
    change: Float[Tensor, "token d_in"],
    norms: Float[Tensor, "token member"],
    directions: Float[Tensor, "member d_in"],
) -> Float[Tensor, "token d_in"]:
    """Put other directions on the tokens of a change, each token keeping the norm of its change.

    Args:
        change: the change that is controlled for.
        norms: norm of every member's own share in it (one member for a latent, several for a set).
        directions: one signed unit direction per member, used in the proportions of `norms`.

    Returns:
        A change that is zero where `change` is, and of the same norm elsewhere.
    """
    mixed = norms @ directions
    size = mixed.norm(dim=-1, keepdim=True)
    wanted = change.norm(dim=-1, keepdim=True)
    return torch.where(size > 0, mixed / size.clamp_min(1e-30) * wanted, torch.zeros_like(mixed))


def moved_change(change: Float[Tensor, "token d_in"], generator: torch.Generator) -> Float[Tensor, "token d_in"]:
    """Put a change on other tokens: as many, drawn among those that it leaves alone while there are enough of them.

    It says whether it matters where an edit stands. It is no null: a direction that is read anywhere does as much.

    Returns:
        A change whose rows are those of `change` in another order.
    """
    touched = change.any(dim=1)
    own, free = touched.nonzero()[:, 0].cpu(), (~touched).nonzero()[:, 0].cpu()
    free = free[torch.randperm(len(free), generator=generator)]
    filled = own[torch.randperm(len(own), generator=generator)]
    places = torch.cat([free, filled])[: len(own)].to(change.device)
    rows = own[torch.randperm(len(own), generator=generator)].to(change.device)
    return torch.zeros_like(change).index_copy(0, places, change[rows])
