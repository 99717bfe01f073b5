"""AuxK on the device: the dead latents as a list of padded size, whose products are dense.

Gao et al. let d_in / 2 dead latents reconstruct the error of each token. That is so large a part of the dead latents
that a dense product over all of them is less work than gathering the chosen ones. The list is processed in chunks of
one size, so each product has the same shape, and the same rounding, however long the list is.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train_sae.kernels.backward import Batch, DeadGradients
from train_sae.kernels.select import keep_topk
from train_sae.step.update import mean_square

_CHUNK = 256


def padded(n_most: int, d_sae: int) -> int:
    """Places in the list of at most `n_most` dead latents: one of few numbers, each with its own recording."""
    n_chunks = 1 << (-(-n_most // _CHUNK) - 1).bit_length() if n_most else 0
    return min(n_chunks, -(-d_sae // _CHUNK)) * _CHUNK


def dead_gradients(
    pre: Float[Tensor, "token d_sae"],
    dead: Bool[Tensor, " d_sae"],
    n_places: int,
    k: int,
    batch: Batch,
    dec: Float[Tensor, "d_sae d_in"],
    *,
    trains_dec: bool = True,
) -> tuple[Float[Tensor, ""], DeadGradients]:
    """The AuxK loss without its coefficient, and its gradients by the dead latents.

    Args:
        pre: pre-activations.
        dead: which latents are dead.
        n_places: places in the list, from `padded`, at least the number of dead latents; more places change only the
            time.
        k: dead latents that reconstruct the error of one token.
        batch: x − b_dec; the residuals x_hat − x of the whole dictionary; the factor of the gradients.
        dec: decoder directions, in the precision of the inputs, which is that of the products.
        trains_dec: whether the directions are trained; otherwise their gradients are left out.
    """
    n_latents, d_in = dec.shape
    starts = range(0, n_places, _CHUNK)
    ranks = dead.cumsum(0)
    places = torch.arange(1, n_places + 1, device=pre.device)
    latents = torch.searchsorted(ranks, places)  # the j-th dead latent is the first with j dead ones up to it
    is_free = latents == n_latents
    latents.clamp_(max=n_latents - 1)
    f = keep_topk(pre.index_select(1, latents).masked_fill_(is_free, -1.0), k).to(dec.dtype)
    chunks = [(slice(start, start + _CHUNK), latents[start : start + _CHUNK]) for start in starts]

    error = batch.residuals.float()
    for chunk, members in chunks:
        error = error + f[:, chunk] @ dec.index_select(0, members)
    aux = mean_square(error) * (ranks[-1] > 0)  # there may be none after all
    error = (error * batch.scale).to(dec.dtype)
    enc = dec.new_empty(n_places, d_in)
    b_enc, along = (torch.zeros(n_places, dtype=torch.float32, device=dec.device) for _ in range(2))
    extra = DeadGradients(
        torch.where(dead, ranks - 1, -1), enc, torch.empty_like(enc) if trains_dec else enc, b_enc, along
    )
    for chunk, members in chunks:
        active = f[:, chunk]
        directions = dec.index_select(0, members)
        grad_pre = (error @ directions.T).mul_(active > 0)
        torch.mm(grad_pre.T, batch.inputs, out=extra.enc[chunk])
        torch.sum(grad_pre, 0, dtype=torch.float32, out=extra.b_enc[chunk])
        if trains_dec:
            torch.mm(active.T, error, out=extra.dec[chunk])
            torch.sum(extra.dec[chunk].float() * directions, 1, out=extra.along[chunk])
    return aux, extra
