"""Which latents stay active at each token of a batch: the TopK and BatchTopK selections, sparse.

Nothing here makes a dense `[batch, d_sae]` activation, and nothing sorts one. Bit patterns of positive floating-point
numbers are in the order of the numbers, so that everything is compared as integers. A selection reads all entries once,
for the maxima of short chunks: that w chunks have a maximum of at least b means that w entries reach b. Few more do,
and only the chunks that hold them are looked at again. numpy compares 16-bit integers, and finds the largest of them,
several times faster than torch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import sparse
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_LONGEST_CHUNK = 64  # as many bytes as one or a few cache lines
_CHUNKS_PER_WINNER = 2


@dataclass(frozen=True)
class ActiveLatents:
    """Which latents are active at each token of a batch and how strongly: a sparse matrix in CSR form."""

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    latents: Int[Tensor, " nnz"]
    """Ascending within a token, except where `torch.topk` selected them."""
    values: Float[Tensor, " nnz"]
    """Latent activations, zero or more."""


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> ActiveLatents:
    """Select the k largest positive pre-activations of each token.

    Among equal values at the boundary, the CPU takes the first latents. On other devices `torch.topk` decides, which
    also selects zeros and, as zeros, negative ones if a token has fewer than k positive pre-activations.

    Args:
        pre: pre-activations.
        k: active latents per token, at most d_sae.
    """
    n_tokens, d_sae = pre.shape
    if pre.device.type != "cpu":
        values, latents = pre.topk(k, dim=1, sorted=False)
        offsets = torch.arange(0, values.numel() + 1, k, device=pre.device)
        return ActiveLatents(offsets, latents.flatten(), values.flatten().relu())
    chunks = _Chunks(pre, k)
    at, bits = chunks.at_least(np.maximum(_kth_largest(chunks.maxima, k), 1))
    n_of_token = np.bincount(at // d_sae, minlength=n_tokens)
    longest = int(n_of_token.max())
    if longest > k:
        kept = _largest_of_each_row(bits, n_of_token, longest, k)
        at, bits = at[kept], bits[kept]
    return _active_latents(pre, at, bits)


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int) -> ActiveLatents:
    """Select the k × batch largest positive pre-activations of the whole batch.

    Exactly k × batch entries are selected, or all positive ones if there are fewer. Among equal values at the boundary,
    the CPU takes the first ones by (token, latent), so the selection is a function of the values alone. On other
    devices `torch.topk` decides, as above.

    Args:
        pre: pre-activations.
        k: active latents per token, on average over the batch; at most d_sae.

    Source: Bussmann et al. 2024 ("BatchTopK sparse autoencoders"), section 3.
    """
    n_tokens, d_sae = pre.shape
    wanted = k * n_tokens
    if pre.device.type != "cpu":
        values, at = pre.flatten().topk(wanted, sorted=False)
        at, order = at.sort()
        tokens = torch.div(at, d_sae, rounding_mode="floor")
        return ActiveLatents(offsets_of(tokens, n_tokens), at - tokens * d_sae, values[order].relu())
    chunks = _Chunks(pre, k)
    at, bits = chunks.at_least(np.maximum(_kth_largest(chunks.maxima.reshape(1, -1), wanted), 1))
    if at.size > wanted:
        boundary = _kth_largest(bits.reshape(1, -1), wanted)[0]
        kept = bits > boundary
        ties = np.flatnonzero(bits == boundary)
        kept[ties[: wanted - np.count_nonzero(kept)]] = True
        at, bits = at[kept], bits[kept]
    return _active_latents(pre, at, bits)


@dataclass(frozen=True)
class Transposed:
    """A selection's entries in the order of their latents: the index of the backward pass."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are those from offsets[i] up to offsets[i + 1]."""
    rows: Int[Tensor, " nnz"]
    """Row of each entry in the selection, ascending within a latent."""
    order: Int[Tensor, " nnz"]
    """Position of each entry in the selection."""


def transpose(selection: ActiveLatents, d_sae: int) -> Transposed:
    """Order a selection's entries by latent and, within a latent, by token."""
    if selection.latents.device.type == "cpu":  # scipy counts where torch sorts
        latents, offsets = selection.latents.numpy(), selection.offsets.numpy()
        by_row = sparse.csr_array((np.arange(latents.size), latents, offsets), shape=(offsets.size - 1, d_sae))
        index = by_row.tocsc()
        return Transposed(*(torch.from_numpy(part).long() for part in (index.indptr, index.indices, index.data)))
    order = selection.latents.argsort(stable=True)
    return Transposed(offsets_of(selection.latents, d_sae), tokens_of(selection).index_select(0, order), order)


def tokens_of(selection: ActiveLatents) -> Int[Tensor, " nnz"]:
    """The token of each entry."""
    lengths = selection.offsets.diff()
    tokens = torch.arange(lengths.numel(), device=lengths.device)
    return tokens.repeat_interleave(lengths, output_size=selection.latents.numel())


def offsets_of(groups: Int[Tensor, " nnz"], n_groups: int) -> Int[Tensor, " groups_and_one"]:
    """Where the entries of each group begin, and where the last one's end, if they are in the order of their groups."""
    ends = torch.bincount(groups, minlength=n_groups).cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])


class _Chunks:
    """Pre-activations as bit patterns, in adjacent chunks that do not reach past the end of a row.

    Args:
        pre: pre-activations, on the CPU.
        k: winners per row; there are twice as many chunks, or a chunk is a single entry.
    """

    def __init__(self, pre: Float[Tensor, "token d_sae"], k: int) -> None:
        bits = pre.contiguous().view(_INTEGERS[pre.element_size()])
        n_tokens, d_sae = bits.shape
        self._length = _LONGEST_CHUNK
        while self._length > 1 and (d_sae % self._length or d_sae < _CHUNKS_PER_WINNER * k * self._length):
            self._length //= 2
        self._chunks = bits.view(-1, self._length)
        maxima = bits if self._length == 1 else self._chunks.amax(1).view(n_tokens, -1)
        self.maxima = maxima.numpy()

    def at_least(self, bounds: Int[np.ndarray, "rows 1"]) -> tuple[Int[np.ndarray, " nnz"], Int[np.ndarray, " nnz"]]:
        """Find the entries that reach the bound: the only one there is, or the one of their row.

        Returns:
            Their positions in the flattened matrix, ascending, and their bit patterns.
        """
        hits = np.flatnonzero(self.maxima >= bounds)
        # torch gathers in several threads.
        found = self._chunks.index_select(0, torch.from_numpy(hits)).numpy()
        if len(bounds) > 1:
            bounds = bounds[hits // self.maxima.shape[1]]
        inside = _positions(found >= bounds)
        hit = inside // self._length
        return hits[hit] * self._length + (inside - hit * self._length), found.ravel()[inside]


def _active_latents(
    pre: Float[Tensor, "token d_sae"], at: Int[np.ndarray, " nnz"], bits: Int[np.ndarray, " nnz"]
) -> ActiveLatents:
    n_tokens, d_sae = pre.shape
    tokens = at // d_sae
    latents, values = torch.from_numpy(at - tokens * d_sae), torch.from_numpy(bits).view(pre.dtype)
    return ActiveLatents(offsets_of(torch.from_numpy(tokens), n_tokens), latents, values)


def _largest_of_each_row(
    values: Int[np.ndarray, " nnz"], n_of_row: Int[np.ndarray, " row"], longest: int, k: int
) -> Bool[np.ndarray, " nnz"]:
    """Which entries, in the order of their rows, are among the k largest of their row; among equal ones, the first."""
    table = np.full((n_of_row.size, longest), np.iinfo(values.dtype).min, dtype=values.dtype)
    is_entry = np.arange(longest) < n_of_row[:, None]
    table[is_entry] = values
    boundary = _kth_largest(table, k)
    kept, ties = table > boundary, table == boundary
    room = k - np.count_nonzero(kept, axis=1, keepdims=True)
    kept |= ties & (np.cumsum(ties, axis=1) <= room)
    return kept[is_entry]


def _positions(mask: Bool[np.ndarray, "chunk entry"]) -> Int[np.ndarray, " nnz"]:
    """Where a mask is true, in the order of the flattened mask; if few are, eight entries at a time are skipped."""
    flat = mask.reshape(-1)
    if flat.size % 8:
        return np.flatnonzero(flat)
    words = flat.view(np.uint64)
    hits = np.flatnonzero(words != 0)
    inside = np.flatnonzero(words[hits].view(np.bool_))
    return hits[inside // 8] * 8 + inside % 8


def _kth_largest(values: Int[np.ndarray, "row column"], k: int) -> Int[np.ndarray, "row 1"]:
    """The k-th largest value of each row."""
    at = values.shape[1] - k
    return np.partition(values, at, axis=1)[:, at : at + 1]
