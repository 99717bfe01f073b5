"""Which latents stay active at each token of a batch: the TopK and BatchTopK selections, sparse.

Nothing here makes a dense `[batch, d_sae]` activation, and nothing sorts one. On the CPU a selection first finds the
few entries that can be among the winners by comparing bit patterns, since those of positive floating-point numbers are
in the order of the numbers, and ranks only them.
"""

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_BLOCK_ELEMENTS = 2**20  # a block and its mask fit into the second-level cache
_CHUNKS_PER_WINNER = 6
_MARGIN = 0.9


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
    bits = pre.contiguous().view(_INTEGERS[pre.element_size()])
    at = _at_least(bits, _row_bounds(bits, k))
    tokens = torch.div(at, d_sae, rounding_mode="floor")
    offsets = _offsets(tokens, n_tokens)
    width = int(offsets.diff().max())
    if width > k:
        at = at[_largest_of_each_row(bits.view(-1)[at], tokens, offsets, width, k)]
        tokens = torch.div(at, d_sae, rounding_mode="floor")
        offsets = _offsets(tokens, n_tokens)
    return Selection(offsets, at - tokens * d_sae, pre.view(-1)[at])


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
    wanted = k * n_tokens
    integer = _INTEGERS[pre.element_size()]
    bits = pre.contiguous().view(integer)
    chosen = bits.new_empty(0, dtype=torch.int64)
    if guess is not None:
        chosen = _at_least(bits, (_MARGIN * guess).to(pre).view(integer).clamp(min=1))
    if chosen.numel() < wanted:
        chosen = _at_least(bits, bits.new_ones(()))
    values = bits.view(-1)[chosen]
    if chosen.numel() > wanted:
        boundary = _kth_largest(values, wanted)
        kept = values > boundary
        ties = _positions(values == boundary)
        kept[ties[: wanted - int(kept.sum())]] = True
        chosen = chosen[_positions(kept)]
    tokens = torch.div(chosen, d_sae, rounding_mode="floor")
    return Selection(_offsets(tokens, n_tokens), chosen - tokens * d_sae, pre.view(-1)[chosen])


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


def _row_bounds(bits: Int[Tensor, "token d_sae"], k: int) -> Int[Tensor, "token 1"]:
    """A positive number for each row that at least k of its entries reach, or all its positive ones do.

    The row is cut into chunks: the k-th largest of their maxima is reached by an entry of each of k chunks.
    """
    n_tokens, d_sae = bits.shape
    width = 1
    while d_sae // (2 * width) >= _CHUNKS_PER_WINNER * k:
        width *= 2
    if width == 1:
        return bits.new_ones((n_tokens, 1))
    n_chunks = d_sae // width
    maxima = bits.new_empty((n_tokens, n_chunks))
    for start in range(0, n_tokens, _block_rows(bits)):
        rows = slice(start, start + _block_rows(bits))
        # A chunk is every n_chunks-th entry, so that the maximum runs along contiguous memory.
        torch.amax(bits[rows, : width * n_chunks].unflatten(1, (width, n_chunks)), 1, out=maxima[rows])
    return maxima.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True).clamp_(min=1)


def _at_least(bits: Int[Tensor, "token d_sae"], floor: Int[Tensor, "*rows"]) -> Int[Tensor, " nnz"]:
    """Positions, in the flattened matrix and rising, of the entries that reach a floor (of all rows or of each)."""
    if bits.device.type != "cpu":
        return _positions((bits >= floor).flatten())
    table, floors, d_sae = bits.numpy(), np.broadcast_to(floor.numpy(), (len(bits), 1)), bits.shape[1]
    rows = _block_rows(bits)

    def block(start: int) -> np.ndarray:
        found = np.flatnonzero(table[start : start + rows] >= floors[start : start + rows])
        found += start * d_sae
        return found

    # numpy compares and finds five times as fast as torch, and leaves the interpreter meanwhile.
    return torch.from_numpy(np.concatenate(list(_in_parallel(block, range(0, len(bits), rows)))))


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


def _block_rows(bits: Tensor) -> int:
    return max(1, _BLOCK_ELEMENTS // bits.shape[1])


def _in_parallel(work: Callable[[int], Any], arguments: Iterable[int]) -> Iterable[Any]:
    n = torch.get_num_threads()
    return map(work, arguments) if n == 1 else _executor(os.getpid(), n).map(work, arguments)


@functools.cache
def _executor(_process: int, n: int) -> ThreadPoolExecutor:
    """As many threads as torch has; those of another process do not live on in its fork."""
    return ThreadPoolExecutor(max_workers=n, thread_name_prefix="select")


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
