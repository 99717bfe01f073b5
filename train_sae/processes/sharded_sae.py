"""An SAE whose latents are divided among the processes: encode, decode, and put it together.

For dictionaries that are too large for one device. A single process has all latents; then these are the SAE's own
functions.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from train_sae.processes.group import Group
from train_sae.sae import Sae, SparseActivations


def encode_share(sae: Sae, x: Float[Tensor, "token d_in"], group: Group) -> SparseActivations:
    """Positive latent activations of the whole SAE that belong to this process's latents, numbered from its first one.

    Args:
        sae: this process's share; a jumprelu or topk SAE if there are several processes.
        x: raw residuals, the same in every process.
        group: the processes.
    """
    if group.n_shards == 1 or sae.architecture != "topk":
        return sae.encode_sparse(x)
    selection = group.select_topk(sae.pre_activations(x), sae.k)
    active = selection.values > 0
    counted = torch.cat([active.new_zeros(1, dtype=torch.int64), active.cumsum(0)])
    return SparseActivations(selection.latents[active].int(), selection.values[active], counted[selection.offsets])


def decode_shares(
    sae: Sae, codes: SparseActivations, x: Float[Tensor, "token d_in"], group: Group
) -> Float[Tensor, "token d_in"]:
    """Reconstruct raw residuals from what all processes have encoded.

    Args:
        sae: this process's share.
        codes: from `encode_share`.
        x: the raw residuals that were encoded.
        group: the processes.
    """
    x_hat = sae.decode_sparse(codes, x)
    return x_hat if group.n_shards == 1 else group.sum_shards(x_hat - sae.b_dec) + sae.b_dec


def whole_sae(sae: Sae, group: Group) -> Sae | None:
    """Put the shares of all processes together, on the first one's CPU; None on the others, which must call this too.

    Args:
        sae: this process's share; returned as it is if there is only one.
        group: the processes.
    """
    if group.n_shards == 1:
        return sae
    assert sae.b_gate is None, "a gated SAE is not trained in shares"
    joined: dict[str, Tensor] = {}
    for name in ("W_enc", "W_dec", "b_enc", "threshold"):
        parts = group.gather_first(getattr(sae, name))
        if group.is_first:
            joined[name] = torch.cat(parts, dim=1 if name == "W_enc" else 0)
    return replace(sae, **joined, b_dec=sae.b_dec.cpu()) if group.is_first else None
