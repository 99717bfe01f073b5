"""Which latents stay active at each token of a batch: the TopK and BatchTopK selections, sparse.

Nothing here makes a dense `[batch, d_sae]` activation, and nothing sorts one. Bit patterns of positive floating-point
numbers are in the order of the numbers, so that everything is compared as integers. A selection reads all entries once,
for the maxima of short chunks: that w chunks have a maximum of at least b means that w entries reach b. Few more do,
and only the chunks that hold them are looked at again.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_LONGEST_CHUNK = 64  # as many bytes as one or a few cache lines
_CHUNKS_PER_WINNER = 2


@dataclass(frozen=True)
class Selection:
    """Which latents are active at each token of a batch and how strongly: a sparse matrix in CSR form."""

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    latents: Int[Tensor, " nnz"]
    values: Float[Tensor, " nnz"]
    """Latent activations, zero or more."""


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Selection:
    """Select the k largest positive pre-activations of each token.

    Of equal values at the boundary the first latents are taken on the CPU; on other devices `torch.topk` decides, which
    also selects zeros and, as zeros, negative ones where a token has fewer than k positive pre-activations.

    Args:
        pre: pre-activations.
        k: active latents a token, at most d_sae.
    """
    n_tokens, d_sae = pre.shape
    if pre.device.type != "cpu":
        values, latents = pre.topk(k, dim=1, sorted=False)
        offsets = torch.arange(0, values.numel() + 1, k, device=pre.device)
        return Selection(offsets, latents.flatten(), values.flatten().relu())
    chunks = _Chunks(pre, k)
    bounds = chunks.maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    at, bits = chunks.at_least(bounds.clamp_(min=1))
    tokens = torch.div(at, d_sae, rounding_mode="floor")
    offsets = _offsets(tokens, n_tokens)
    longest = int(offsets.diff().max())
    if longest > k:
        kept = _largest_of_each_row(bits, tokens, offsets, longest, k)
        at, bits, tokens = at[kept], bits[kept], tokens[kept]
        offsets = _offsets(tokens, n_tokens)
    return Selection(offsets, at - tokens * d_sae, bits.view(pre.dtype))


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Selection:
    """Select the k × batch largest positive pre-activations of the whole batch.

    Exactly k × batch entries are selected, or all positive ones where there are fewer. Of equal values at the boundary
    the first ones by (token, latent) are taken, so the selection is a function of the values alone.

    Args:
        pre: pre-activations.
        k: active latents a token, on average over the batch; at most d_sae.

    Source: Bussmann et al. 2024 ("BatchTopK sparse autoencoders"), section 3.
    """
    n_tokens, d_sae = pre.shape
    wanted, chunks = k * n_tokens, _Chunks(pre, k)
    at, bits = chunks.at_least(_kth_largest(chunks.maxima.flatten(), wanted).clamp_(min=1))
    if at.numel() > wanted:
        boundary = _kth_largest(bits, wanted)
        kept = bits > boundary
        ties = _positions(bits == boundary)
        kept[ties[: wanted - int(kept.sum())]] = True
        kept = _positions(kept)
        at, bits = at[kept], bits[kept]
    tokens = torch.div(at, d_sae, rounding_mode="floor")
    return Selection(_offsets(tokens, n_tokens), at - tokens * d_sae, bits.view(pre.dtype))


@dataclass(frozen=True)
class Transposed:
    """A selection's entries in the order of their latents: the index of the backward pass."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are those from offsets[i] up to offsets[i + 1]."""
    rows: Int[Tensor, " nnz"]
    """Row of each entry in the selection, within a latent rising."""
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


class _Chunks:
    """Pre-activations as bit patterns, in chunks that lie side by side and do not reach over the end of a row.

    Args:
        pre: pre-activations.
        k: winners a row; there are twice as many chunks, or a chunk is a single entry.
    """

    def __init__(self, pre: Float[Tensor, "token d_sae"], k: int) -> None:
        bits = pre.contiguous().view(_INTEGERS[pre.element_size()])
        n_tokens, d_sae = bits.shape
        self._length = _LONGEST_CHUNK
        while self._length > 1 and (d_sae % self._length or d_sae < _CHUNKS_PER_WINNER * k * self._length):
            self._length //= 2
        self._chunks = bits.view(-1, self._length)
        self.maxima = bits if self._length == 1 else self._chunks.amax(1).view(n_tokens, -1)

    def at_least(self, bounds: Int[Tensor, "*rows"]) -> tuple[Int[Tensor, " nnz"], Int[Tensor, " nnz"]]:
        """Find the entries that reach a bound, or the one of their row.

        Returns:
            Their positions in the flattened matrix, rising, and their bit patterns.
        """
        hits = _positions((self.maxima >= bounds).flatten())
        found = self._chunks.index_select(0, hits)
        if bounds.dim():
            rows = torch.div(hits, self.maxima.shape[1], rounding_mode="floor")
            bounds = bounds.index_select(0, rows)
        inside = _positions((found >= bounds).flatten())
        hit = torch.div(inside, self._length, rounding_mode="floor")
        at = hits.index_select(0, hit).mul_(self._length).add_(inside - hit * self._length)
        return at, found.flatten().index_select(0, inside)


def _largest_of_each_row(
    values: Int[Tensor, " nnz"],
    tokens: Int[Tensor, " nnz"],
    offsets: Int[Tensor, " rows_and_one"],
    width: int,
    k: int,
) -> Int[Tensor, " kept"]:
    """Which entries are among the k largest of their row, the first of equal ones."""
    least = torch.iinfo(values.dtype).min
    cells = tokens * width + _ranks(tokens, offsets)
    table = values.new_full((offsets.numel() - 1, width), least)
    table.view(-1)[cells] = values
    boundary = table.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    kept, ties = table > boundary, table == boundary
    kept |= ties & (ties.cumsum(1) <= k - kept.sum(1, keepdim=True))
    return _positions(kept.view(-1)[cells])


def _ranks(tokens: Int[Tensor, " nnz"], offsets: Int[Tensor, " rows_and_one"]) -> Int[Tensor, " nnz"]:
    """Number of entries of the same row before each."""
    return torch.arange(tokens.numel(), device=tokens.device) - offsets[tokens]


def _positions(mask: Bool[Tensor, " n"]) -> Int[Tensor, " nnz"]:
    """Where a mask is true, in rising order."""
    if mask.device.type == "cpu":  # numpy is faster there
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero().squeeze(1)


def _kth_largest(values: Int[Tensor, " n"], k: int) -> Int[Tensor, ""]:
    """The k-th largest value."""
    if values.device.type == "cpu":  # as above
        at = values.numel() - k
        return values.new_tensor(np.partition(values.numpy(), at)[at])
    return values.topk(k, sorted=False).values.min()


def _offsets(groups: Int[Tensor, " nnz"], n_groups: int) -> Int[Tensor, " groups_and_one"]:
    ends = torch.bincount(groups, minlength=n_groups).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])
