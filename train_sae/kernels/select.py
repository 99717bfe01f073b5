"""TopK and BatchTopK on the device: chunk maxima from one reading, then an exact search in the winning chunks only.

All pre-activations are read once, for the maximum of each chunk of a row; everything after that reads the chunks that
can hold a winner (`chunks`). TopK finds each row's bound, BatchTopK that of the batch (`bounds`). Among equal values at
the boundary, the first by (token, latent) are taken, as everywhere.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.bounds import batch_bound, listed_bounds, row_bounds
from train_sae.kernels.chunks import (
    ListedChunks,
    chunk_maxima,
    is_kept,
    list_chunks,
    listed_block,
    listed_entries,
    row_shape,
)
from train_sae.kernels.jit import kernel, warps_of

_INTEGERS = {2: torch.int16, 4: torch.int32}


class Entries(NamedTuple):
    """A selection in memory of fixed size: its entries in the order of (token, latent), then free slots.

    Every entry is positive. A free slot has the value 0, and token and latent numbers one past the last.
    """

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    tokens: Int[Tensor, " slot"]
    latents: Int[Tensor, " slot"]
    values: Float[Tensor, " slot"]


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k largest positive pre-activations of each token, in k × batch slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents per token.
    """
    bits, n_tokens = pre.view(_INTEGERS[pre.element_size()]), len(pre)
    maxima, length = chunk_maxima(bits, k)
    bounds, above = row_bounds(maxima, k)
    listed = list_chunks(maxima, bounds, k - above, min(k, maxima.shape[1]), length)
    bounds, above = listed_bounds(bits, listed, k)
    # A row without a bound has fewer than k positive entries, and all of them are above zero.
    offsets = _offsets(torch.where(bounds > 0, k, above))
    return _write(bits, listed, bounds, k - above, offsets, n_tokens * k, pre.dtype)


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k × batch largest positive pre-activations of the batch, in k × batch slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents per token, on average over the batch.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    n_tokens, d_sae = bits.shape
    wanted = k * n_tokens
    maxima, length = chunk_maxima(bits, k)
    bound, _ = batch_bound(maxima, wanted, None)
    everywhere = bound.expand(n_tokens).contiguous()
    # All chunks that reach the bound; a few with equal maxima may be too many, but a row has room for all its chunks.
    listed = list_chunks(maxima, (everywhere - 1).clamp_(min=0), torch.zeros_like(everywhere), maxima.shape[1], length)
    bound, above = batch_bound(bits, wanted, listed)
    everywhere = bound.expand(n_tokens).contiguous()
    more, ties = torch.empty_like(everywhere), torch.empty_like(everywhere)
    block = listed_block(length)
    _listed_counts[(n_tokens,)](
        bits, listed.chunks, listed.counts, bound, more, ties, d_sae, listed.chunks.shape[1],
        CHUNK=length, BLOCK=block, num_warps=warps_of(block, 8),
    )  # fmt: skip
    # Ties are taken row by row until there are enough.
    row_needs = (wanted - above - (ties.cumsum(0) - ties)).clamp(min=0).minimum(ties)
    return _write(bits, listed, everywhere, row_needs.int(), _offsets(more + row_needs), wanted, pre.dtype)


def keep_topk(pre: Float[Tensor, "token latent"], k: int) -> Float[Tensor, "token latent"]:
    """The k largest positive pre-activations of each token, and zero elsewhere.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents per token.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    bounds, above = row_bounds(bits, k)
    kept, (n_tokens, d_sae) = torch.empty_like(bits), bits.shape
    _keep_selected[(n_tokens,)](bits, bounds, k - above, kept, d_sae, **row_shape(d_sae))
    return kept.view(pre.dtype)


def _offsets(counts: Int[Tensor, " token"]) -> Int[Tensor, " rows_and_one"]:
    ends = counts.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])


def _write(
    bits: Int[Tensor, "token d_sae"],
    listed: ListedChunks,
    bounds: Int[Tensor, " token"],
    needs: Int[Tensor, " token"],
    offsets: Int[Tensor, " rows_and_one"],
    n_slots: int,
    dtype: torch.dtype,
) -> Entries:
    n_tokens, d_sae = bits.shape
    tokens = bits.new_full((n_slots,), n_tokens, dtype=torch.int32)
    latents = bits.new_full((n_slots,), d_sae, dtype=torch.int32)
    values = bits.new_zeros(n_slots)
    block = listed_block(listed.length)
    _write_listed[(n_tokens,)](
        bits, listed.chunks, listed.counts, bounds, needs, offsets, tokens, latents, values,
        d_sae, listed.chunks.shape[1], CHUNK=listed.length, BLOCK=block, num_warps=warps_of(block, 8),
    )  # fmt: skip
    return Entries(offsets, tokens, latents, values.view(dtype).float())


@kernel("CHUNK", "BLOCK")
def _listed_counts(
    bits_ptr, chunks_ptr, listed_ptr, bound_ptr, more_ptr, ties_ptr, d_sae, capacity, CHUNK, BLOCK
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    bound = tl.load(bound_ptr)
    n_listed = tl.load(listed_ptr + row)
    more = tl.zeros([BLOCK], tl.int32)
    ties = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n_listed, BLOCK // CHUNK):
        _, stored = listed_entries(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
        bits = stored.to(tl.int32)
        more += (bits > bound).to(tl.int32)
        ties += ((bits == bound) & (bound > 0)).to(tl.int32)
    tl.store(more_ptr + row, tl.sum(more, axis=0))
    tl.store(ties_ptr + row, tl.sum(ties, axis=0))


@kernel("CHUNK", "BLOCK")
def _write_listed(
    bits_ptr, chunks_ptr, listed_ptr, bounds_ptr, needs_ptr, offsets_ptr, tokens_ptr, latents_ptr, values_ptr,
    d_sae, capacity, CHUNK, BLOCK,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    bound = tl.load(bounds_ptr + row)
    need = tl.load(needs_ptr + row)
    taken = tl.load(offsets_ptr + row)
    n_listed = tl.load(listed_ptr + row)
    tied = 0
    for start in range(0, n_listed, BLOCK // CHUNK):
        at, stored = listed_entries(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
        kept, ties = is_kept(stored.to(tl.int32), bound, need, tied)
        slots = taken + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(tokens_ptr + slots, tl.zeros([BLOCK], tl.int32) + tl.program_id(0), mask=kept)
        tl.store(latents_ptr + slots, at, mask=kept)
        tl.store(values_ptr + slots, stored, mask=kept)
        taken += tl.sum(kept.to(tl.int32), axis=0)
        tied += ties


@kernel("BLOCK")
def _keep_selected(bits_ptr, bounds_ptr, needs_ptr, kept_ptr, d_sae, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = tl.load(bounds_ptr + row)
    need = tl.load(needs_ptr + row)
    tied = 0
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        stored = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1)
        kept, ties = is_kept(stored.to(tl.int32), bound, need, tied)
        tl.store(kept_ptr + row * d_sae + at, tl.where(kept, stored, 0), mask=at < d_sae)
        tied += ties
