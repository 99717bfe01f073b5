"""TopK and BatchTopK on the device: bounds by radix search on bit patterns, then compaction.

The bit patterns of positive floating-point numbers, read as integers, are in the order of the numbers, and those of
negative ones are negative. TopK finds each row's bound bit by bit; BatchTopK finds the bound of the whole batch from
histograms of one byte after the other, two passes over bfloat16. Both bounds are exact, and of equal values at the
boundary the first by (token, latent) are taken, as everywhere.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two

_INTEGERS = {2: torch.int16, 4: torch.int32}
_DIGITS = 256
_MAX_BLOCK = 4096


class Entries(NamedTuple):
    """A selection of fixed size: entries beyond those selected have the value 0, at token 0 and latent 0."""

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    tokens: Int[Tensor, " slot"]
    latents: Int[Tensor, " slot"]
    values: Float[Tensor, " slot"]


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k largest positive pre-activations of each token; every token has k slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents a token.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    n_tokens, d_sae = bits.shape
    bounds, above = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    block = min(_MAX_BLOCK, power_of_two(d_sae))
    _row_bounds[(n_tokens,)](bits, bounds, above, d_sae, k, N_BITS=8 * pre.element_size() - 1, BLOCK=block)
    offsets = torch.arange(0, n_tokens * k + 1, k, device=pre.device)
    return _write(bits, bounds, k - above, offsets, n_tokens * k, pre.dtype)


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k × batch largest positive pre-activations of the batch, in k × batch slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents a token, on average over the batch.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    n_tokens, d_sae = bits.shape
    wanted, n, block = k * n_tokens, bits.numel(), min(_MAX_BLOCK, power_of_two(bits.numel()))
    prefix, above = bits.new_zeros(1, dtype=torch.int32), bits.new_zeros(1, dtype=torch.int64)
    for shift in range(8 * (pre.element_size() - 1), -1, -8):
        counts = bits.new_zeros(_DIGITS, dtype=torch.int32)
        _digit_histogram[(triton.cdiv(n, block),)](bits, prefix, counts, n, shift, BLOCK=block)
        # Entries of this prefix with at least each digit; one more for a digit beyond the last.
        reached = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
        digit = ((above + reached >= wanted).sum(0, keepdim=True) - 1).clamp(min=0)
        above = above + reached[digit + 1]
        prefix = (prefix * _DIGITS + digit).int()
    more, ties = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    _row_counts[(n_tokens,)](bits, prefix, more, ties, d_sae, BLOCK=min(_MAX_BLOCK, power_of_two(d_sae)))
    # Ties are taken row by row until there are enough.
    row_needs = (wanted - above - (ties.cumsum(0) - ties)).clamp(min=0).minimum(ties)
    ends = (more + row_needs).cumsum(0)
    offsets = torch.cat([ends.new_zeros(1), ends])
    return _write(bits, prefix.expand(n_tokens).contiguous(), row_needs.int(), offsets, wanted, pre.dtype)


def _write(
    bits: Int[Tensor, "token d_sae"],
    bounds: Int[Tensor, " token"],
    needs: Int[Tensor, " token"],
    offsets: Int[Tensor, " rows_and_one"],
    n_slots: int,
    dtype: torch.dtype,
) -> Entries:
    tokens, latents = bits.new_zeros(n_slots, dtype=torch.int64), bits.new_zeros(n_slots, dtype=torch.int64)
    values = bits.new_zeros(n_slots)
    n_tokens, d_sae = bits.shape
    block = min(_MAX_BLOCK, power_of_two(d_sae))
    _write_selected[(n_tokens,)](bits, bounds, needs, offsets, tokens, latents, values, d_sae, BLOCK=block)
    return Entries(offsets, tokens, latents, values.view(dtype).float())


@kernel("N_BITS", "BLOCK")
def _row_bounds(bits_ptr, bounds_ptr, above_ptr, d_sae, k, N_BITS, BLOCK):
    # The largest bound that at least k entries of the row reach, or 0; and how many exceed it.
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = 0
    for bit in range(N_BITS):
        trial = bound | (1 << (N_BITS - 1 - bit))
        count = 0
        for start in range(0, d_sae, BLOCK):
            at = start + columns
            bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
            count += tl.sum((bits >= trial).to(tl.int32), axis=0)
        bound = tl.where(count >= k, trial, bound)
    above = 0
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
        above += tl.sum((bits > bound).to(tl.int32), axis=0)
    tl.store(bounds_ptr + row, bound)
    tl.store(above_ptr + row, above)


@kernel("BLOCK")
def _digit_histogram(bits_ptr, prefix_ptr, counts_ptr, n, shift, BLOCK):
    # How many positive entries with the given higher digits have each next digit of eight bits.
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.load(bits_ptr + at, mask=at < n, other=-1).to(tl.int32)
    shifted = bits >> shift
    inside = (bits > 0) & ((shifted >> 8) == tl.load(prefix_ptr))
    counts = tl.histogram(tl.where(inside, shifted & 255, 0), 256)
    digits = tl.arange(0, 256)
    outside = tl.sum((~inside).to(tl.int32), axis=0)
    counts = tl.where(digits == 0, counts - outside, counts)
    tl.atomic_add(counts_ptr + digits, counts, mask=counts > 0)


@kernel("BLOCK")
def _row_counts(bits_ptr, bound_ptr, more_ptr, ties_ptr, d_sae, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = tl.load(bound_ptr)
    more = 0
    ties = 0
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
        more += tl.sum((bits > bound).to(tl.int32), axis=0)
        ties += tl.sum(((bits == bound) & (bound > 0)).to(tl.int32), axis=0)
    tl.store(more_ptr + row, more)
    tl.store(ties_ptr + row, ties)


@kernel("BLOCK")
def _write_selected(bits_ptr, bounds_ptr, needs_ptr, offsets_ptr, tokens_ptr, latents_ptr, values_ptr, d_sae, BLOCK):
    # The entries above the row's bound and the first so many that equal it, in the order of latents.
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = tl.load(bounds_ptr + row)
    need = tl.load(needs_ptr + row)
    taken = tl.load(offsets_ptr + row)
    tied = 0
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        stored = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1)
        bits = stored.to(tl.int32)
        ties = ((bits == bound) & (bound > 0)).to(tl.int32)
        before = tied + tl.cumsum(ties, axis=0) - ties
        kept = (bits > bound) | ((ties > 0) & (before < need))
        slots = taken + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(tokens_ptr + slots, tl.zeros([BLOCK], tl.int64) + row, mask=kept)
        tl.store(latents_ptr + slots, at.to(tl.int64), mask=kept)
        tl.store(values_ptr + slots, stored, mask=kept)
        taken += tl.sum(kept.to(tl.int32), axis=0)
        tied += tl.sum(ties, axis=0)
