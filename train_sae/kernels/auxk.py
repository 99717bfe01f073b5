"""AuxK on the device: the dead latents as a list of padded size, whose products are dense.

Gao et al. let half of d_in dead latents reconstruct the error of each token. That is so large a part of them that a
dense product over all dead latents is less work than gathering the chosen ones. The list is walked through in chunks
of one size, so that each product has the same shape, and so the same rounding, however long the list was made.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train_sae.kernels.backward import Batch, Extra
from train_sae.kernels.select import keep_topk
from train_sae.update import mean_square

_CHUNK = 256


def dead_gradients(
    pre: Float[Tensor, "token d_sae"],
    dead: Bool[Tensor, " d_sae"],
    n_most: int,
    k: int,
    batch: Batch,
    dec: Float[Tensor, "d_sae d_in"],
) -> tuple[Float[Tensor, ""], Extra]:
    """The AuxK loss without its coefficient, and its gradients by the dead latents.

    Args:
        pre: pre-activations.
        dead: which latents are dead.
        n_most: a number that the dead latents do not exceed; it changes nothing but the time.
        k: dead latents that reconstruct the error of one token.
        batch: x − b_dec in float32; the residuals x_hat − x of the whole dictionary; the factor of the gradients.
        dec: decoder directions; their gradients are left out where they are not trained.
    """
    n_latents, d_in = dec.shape
    starts = range(0, n_most, _CHUNK)
    ranks = dead.cumsum(0)
    places = torch.arange(1, _CHUNK * len(starts) + 1, device=pre.device)
    latents = torch.searchsorted(ranks, places)  # the j-th dead latent is the first with j dead ones up to it
    is_free = latents == n_latents
    latents.clamp_(max=n_latents - 1)
    f = keep_topk(pre.index_select(1, latents).masked_fill_(is_free, -1.0), k)
    chunks = [(slice(start, start + _CHUNK), latents[start : start + _CHUNK]) for start in starts]

    error = batch.residuals.clone()
    for chunk, members in chunks:
        error.addmm_(f[:, chunk].float(), dec.index_select(0, members))
    aux = mean_square(error) * (ranks[-1] > 0)  # there may be none after all
    error *= batch.scale
    enc, b_enc = dec.new_empty(len(places), d_in), dec.new_empty(len(places))
    extra = Extra(torch.where(dead, ranks - 1, -1), enc, torch.empty_like(enc) if dec.requires_grad else enc, b_enc)
    for chunk, members in chunks:
        active = f[:, chunk].float()
        grad_pre = (error @ dec.index_select(0, members).T).mul_(active > 0)
        torch.mm(grad_pre.T, batch.inputs, out=extra.enc[chunk])
        torch.sum(grad_pre, 0, out=extra.b_enc[chunk])
        if dec.requires_grad:
            torch.mm(active.T, error, out=extra.dec[chunk])
    return aux, extra
