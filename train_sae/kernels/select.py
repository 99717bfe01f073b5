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
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_INTEGERS = {2: torch.int16, 4: torch.int32}
_DIGITS = 256
_MAX_BLOCK = 1024
_RESIDENT = 32768
"""A row of at most so many entries stays in registers while its bound is searched."""


class Entries(NamedTuple):
    """A selection in memory of fixed size: its entries in the order of (token, latent), then free slots.

    Every entry is positive. A free slot has the value 0, and the token and the latent behind the last ones.
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
        k: active latents a token.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    bounds, above = _bounds(bits, k)
    # A row without a bound has fewer than k positive entries, and all of them are above zero.
    offsets = _offsets(torch.where(bounds > 0, k, above))
    return _write(bits, bounds, k - above, offsets, len(pre) * k, pre.dtype)


def select_batch_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k × batch largest positive pre-activations of the batch, in k × batch slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents a token, on average over the batch.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    n_tokens, d_sae = bits.shape
    wanted, shape = k * n_tokens, _shape(d_sae)
    prefix, above = bits.new_zeros(1, dtype=torch.int32), bits.new_zeros(1, dtype=torch.int64)
    for shift in range(8 * (pre.element_size() - 1), -1, -8):
        counts = bits.new_zeros(_DIGITS, dtype=torch.int64)
        _digit_histogram[(n_tokens,)](bits, prefix, counts, d_sae, shift, **shape)
        # Entries of this prefix with at least each digit; one more for a digit beyond the last.
        reached = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
        digit = ((above + reached >= wanted).sum(0, keepdim=True) - 1).clamp(min=0)
        above = above + reached.index_select(0, digit + 1)
        prefix = (prefix * _DIGITS + digit).int()
    more, ties = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    _row_counts[(n_tokens,)](bits, prefix, more, ties, d_sae, **shape)
    # Ties are taken row by row until there are enough.
    row_needs = (wanted - above - (ties.cumsum(0) - ties)).clamp(min=0).minimum(ties)
    return _write(
        bits, prefix.expand(n_tokens).contiguous(), row_needs.int(), _offsets(more + row_needs), wanted, pre.dtype
    )


def keep_topk(pre: Float[Tensor, "token latent"], k: int) -> Float[Tensor, "token latent"]:
    """The k largest positive pre-activations of each token, and zero elsewhere.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents a token.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    bounds, above = _bounds(bits, k)
    kept, (n_tokens, d_sae) = torch.empty_like(bits), bits.shape
    _keep_selected[(n_tokens,)](bits, bounds, k - above, kept, d_sae, **_shape(d_sae))
    return kept.view(pre.dtype)


def _bounds(bits: Int[Tensor, "token d_sae"], k: int) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """The largest positive bound that at least k entries of each row reach, or 0; and how many exceed it."""
    n_tokens, d_sae = bits.shape
    bounds, above = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    whole = power_of_two(d_sae)
    is_resident = whole <= _RESIDENT
    shape = {"BLOCK": whole, "num_warps": warps_of(whole, 64)} if is_resident else _shape(d_sae)
    n_bits = 8 * bits.element_size() - 1
    _row_bounds[(n_tokens,)](bits, bounds, above, d_sae, k, N_BITS=n_bits, RESIDENT=is_resident, **shape)
    return bounds, above


def _shape(d_sae: int) -> dict[str, int]:
    """Of the programs that walk through a row in blocks."""
    block = min(_MAX_BLOCK, power_of_two(d_sae))
    return {"BLOCK": block, "num_warps": warps_of(block, 8)}


def _offsets(counts: Int[Tensor, " token"]) -> Int[Tensor, " rows_and_one"]:
    ends = counts.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])


def _write(
    bits: Int[Tensor, "token d_sae"],
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
    _write_selected[(n_tokens,)](bits, bounds, needs, offsets, tokens, latents, values, d_sae, **_shape(d_sae))
    return Entries(offsets, tokens, latents, values.view(dtype).float())


@kernel("N_BITS", "RESIDENT", "BLOCK")
def _row_bounds(bits_ptr, bounds_ptr, above_ptr, d_sae, k, N_BITS, RESIDENT, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = 0
    above = 0
    if RESIDENT:
        bits = tl.load(bits_ptr + row * d_sae + columns, mask=columns < d_sae, other=-1).to(tl.int32)
        for bit in range(N_BITS):
            trial = bound | (1 << (N_BITS - 1 - bit))
            count = tl.sum((bits >= trial).to(tl.int32), axis=0)
            bound = tl.where(count >= k, trial, bound)
        above = tl.sum((bits > bound).to(tl.int32), axis=0)
    else:
        for bit in range(N_BITS):
            trial = bound | (1 << (N_BITS - 1 - bit))
            counts = tl.zeros([BLOCK], tl.int32)
            for start in range(0, d_sae, BLOCK):
                at = start + columns
                bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
                counts += (bits >= trial).to(tl.int32)
            bound = tl.where(tl.sum(counts, axis=0) >= k, trial, bound)
        counts = tl.zeros([BLOCK], tl.int32)
        for start in range(0, d_sae, BLOCK):
            at = start + columns
            bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
            counts += (bits > bound).to(tl.int32)
        above = tl.sum(counts, axis=0)
    tl.store(bounds_ptr + row, bound)
    tl.store(above_ptr + row, above)


@kernel("BLOCK")
def _digit_histogram(bits_ptr, prefix_ptr, counts_ptr, d_sae, shift, BLOCK):
    # How many positive entries with the given higher digits have each next digit of eight bits.
    row = tl.program_id(0).to(tl.int64)
    digits = tl.arange(0, 256)
    prefix = tl.load(prefix_ptr)
    counts = tl.zeros([256], tl.int32)
    outside = tl.zeros([BLOCK], tl.int32)
    for start in range(0, d_sae, BLOCK):
        at = start + tl.arange(0, BLOCK)
        bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
        shifted = bits >> shift
        inside = (bits > 0) & ((shifted >> 8) == prefix)
        counts += tl.histogram(tl.where(inside, shifted & 255, 0), 256)
        outside += (~inside).to(tl.int32)
    counts -= tl.where(digits == 0, tl.sum(outside, axis=0), 0)
    tl.atomic_add(counts_ptr + digits, counts.to(tl.int64), mask=counts > 0)


@kernel("BLOCK")
def _row_counts(bits_ptr, bound_ptr, more_ptr, ties_ptr, d_sae, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = tl.load(bound_ptr)
    more = tl.zeros([BLOCK], tl.int32)
    ties = tl.zeros([BLOCK], tl.int32)
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1).to(tl.int32)
        more += (bits > bound).to(tl.int32)
        ties += ((bits == bound) & (bound > 0)).to(tl.int32)
    tl.store(more_ptr + row, tl.sum(more, axis=0))
    tl.store(ties_ptr + row, tl.sum(ties, axis=0))


@kernel()
def _is_kept(bits, bound, need, tied):
    # Which entries exceed the bound, or are among the first so many that equal it; and how many equal it.
    ties = ((bits == bound) & (bound > 0)).to(tl.int32)
    before = tied + tl.cumsum(ties, axis=0) - ties
    return (bits > bound) | ((ties > 0) & (before < need)), tl.sum(ties, axis=0)


@kernel("BLOCK")
def _write_selected(bits_ptr, bounds_ptr, needs_ptr, offsets_ptr, tokens_ptr, latents_ptr, values_ptr, d_sae, BLOCK):
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    bound = tl.load(bounds_ptr + row)
    need = tl.load(needs_ptr + row)
    taken = tl.load(offsets_ptr + row)
    tied = 0
    for start in range(0, d_sae, BLOCK):
        at = start + columns
        stored = tl.load(bits_ptr + row.to(tl.int64) * d_sae + at, mask=at < d_sae, other=-1)
        kept, ties = _is_kept(stored.to(tl.int32), bound, need, tied)
        slots = taken + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(tokens_ptr + slots, tl.zeros([BLOCK], tl.int32) + row, mask=kept)
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
        kept, ties = _is_kept(stored.to(tl.int32), bound, need, tied)
        tl.store(kept_ptr + row * d_sae + at, tl.where(kept, stored, 0), mask=at < d_sae)
        tied += ties
