"""Which latents stay active at each token of a batch: the TopK and BatchTopK selections, sparse.

Nothing here makes a dense `[batch, d_sae]` activation.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Which latents are active at each token of a batch and how strongly: a sparse matrix in CSR form."""

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    latents: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    """Latent activations, zero or more."""


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Selection:
    """Select the k largest pre-activations of each token; a negative one counts as zero.

    Every token has exactly k entries, of which some may be zero. `torch.topk` decides between equal values, as it does
    in SAELens.
    """
    values, latents = pre.topk(k, dim=1, sorted=False)
    offsets = torch.arange(0, values.numel() + 1, k, device=pre.device)
    return Selection(offsets, latents.flatten(), values.flatten().relu())


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int, guess: Float[Tensor, ""] | None = None) -> Selection:
    """Select the k × batch largest positive pre-activations of the whole batch.

    Exactly k × batch entries are selected, or all positive ones where there are fewer. Of equal values at the boundary
    the first ones by (token, latent) are taken, so the selection is a function of the values alone.

    Args:
        pre: pre-activations.
        k: active latents a token, on average over the batch.
        guess: a guess of the smallest value that will be selected, such as the one of the last batches. It changes
            nothing but the time: a good guess leaves few candidates to rank.

    Source: Bussmann et al. 2024 ("BatchTopK sparse autoencoders"), section 3.
    """
    n_tokens, d_sae = pre.shape
    flat = pre.flatten()
    wanted = k * n_tokens
    chosen = flat.new_empty(0, dtype=torch.int64)
    if guess is not None:
        chosen = _positions(flat > 0.9 * guess.clamp(min=0))
    if chosen.numel() < wanted:
        chosen = _positions(flat > 0)
    values = flat.index_select(0, chosen)
    if chosen.numel() > wanted:
        boundary = _kth_largest(values, wanted)
        kept = values > boundary
        ties = _positions(values == boundary)
        kept[ties[: wanted - int(kept.sum())]] = True
        kept = _positions(kept)
        chosen, values = chosen.index_select(0, kept), values.index_select(0, kept)
    tokens = chosen // d_sae
    return Selection(_offsets(tokens, n_tokens), chosen - tokens * d_sae, values)


@dataclass(frozen=True)
class Transposed:
    """A selection's entries in the order of their latents: the index of the backward pass."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are those from offsets[i] up to offsets[i + 1]."""
    tokens: Int[Tensor, " nnz"]
    order: Int[Tensor, " nnz"]
    """Position of each entry in the selection."""


def transpose(selection: Selection, d_sae: int) -> Transposed:
    """Order a selection's entries by latent and, within a latent, by token."""
    order = selection.latents.argsort(stable=True)
    return Transposed(_offsets(selection.latents, d_sae), tokens_of(selection).index_select(0, order), order)


def tokens_of(selection: Selection) -> Int[Tensor, " nnz"]:
    """The token of each entry."""
    lengths = selection.offsets.diff()
    tokens = torch.arange(lengths.numel(), device=lengths.device)
    return tokens.repeat_interleave(lengths, output_size=selection.latents.numel())


def _positions(mask: Bool[Tensor, " n"]) -> Int[Tensor, " nnz"]:
    """Where a mask is true, in rising order."""
    if mask.device.type == "cpu":  # numpy is twice as fast there
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def _kth_largest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """The k-th largest value."""
    if values.device.type == "cpu" and values.dtype != torch.bfloat16:  # as above; numpy has no bfloat16
        at = values.numel() - k
        return values.new_tensor(np.partition(values.numpy(), at)[at])
    return values.topk(k, sorted=False).values.min()


def _offsets(groups: Int[Tensor, " nnz"], n_groups: int) -> Int[Tensor, " groups_and_one"]:
    ends = torch.bincount(groups, minlength=n_groups).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])
