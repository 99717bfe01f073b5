"""Bounds that a given number of entries reach: for each row bit by bit, for the whole batch from histograms of digits.

Entries are bit patterns, as in `chunks`. Both searches are exact. What they find is the largest positive bound that the
wanted number of entries reaches, or 0 if fewer are positive; and how many entries exceed it.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

import torch
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from train_sae.kernels.chunks import ListedChunks, listed_block, listed_entries, row_shape
from train_sae.kernels.jit import kernel, power_of_two, warps_of

_DIGITS = 256
_RESIDENT = 32768
"""A row of at most this many entries stays in registers while its bound is searched."""
_PROGRAMS = 1024
"""Programs that count the digits of all rows: few, because each adds its counts to the total."""


def row_bounds(bits: Int[Tensor, "token entry"], k: int) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """The largest positive bound that at least k entries of each row reach, or 0; and how many exceed it."""
    n_tokens, n_entries = bits.shape
    bounds, above = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    whole = power_of_two(n_entries)
    is_resident = whole <= _RESIDENT
    shape = {"BLOCK": whole, "num_warps": warps_of(whole, 64)} if is_resident else row_shape(n_entries)
    _row_bounds[(n_tokens,)](bits, bounds, above, n_entries, k, N_BITS=_value_bits(bits), RESIDENT=is_resident, **shape)
    return bounds, above


def listed_bounds(
    bits: Int[Tensor, "token d_sae"], listed: ListedChunks, k: int
) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """As `row_bounds`, but only for the entries of the listed chunks."""
    n_tokens, d_sae = bits.shape
    bounds, above = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    block = power_of_two(listed.chunks.shape[1] * listed.length)
    _listed_bounds[(n_tokens,)](
        bits, listed.chunks, listed.counts, bounds, above, d_sae, listed.chunks.shape[1], k,
        N_BITS=_value_bits(bits), CHUNK=listed.length, BLOCK=block, num_warps=warps_of(block, 16),
    )  # fmt: skip
    return bounds, above


def batch_bound(
    bits: Int[Tensor, "token entry"], wanted: int, listed: ListedChunks | None
) -> tuple[Int[Tensor, " 1"], Int[Tensor, " 1"]]:
    """The largest positive bound that `wanted` entries of all rows reach, or 0; and how many exceed it.

    Args:
        bits: the entries.
        wanted: how many must reach it.
        listed: the chunks to which the search is confined.
    """
    n_tokens, n_entries = bits.shape
    bound, above = bits.new_zeros(1, dtype=torch.int32), bits.new_zeros(1, dtype=torch.int64)
    programs = (min(_PROGRAMS, n_tokens),)
    for shift in range(8 * (bits.element_size() - 1), -1, -8):
        counts = bits.new_zeros(_DIGITS, dtype=torch.int32)
        if listed is None:
            _digit_histogram[programs](bits, bound, counts, n_tokens, n_entries, shift, **row_shape(n_entries))
        else:
            block = listed_block(listed.length)
            _listed_histogram[programs](
                bits, listed.chunks, listed.counts, bound, counts, n_tokens, n_entries, listed.chunks.shape[1], shift,
                CHUNK=listed.length, BLOCK=block, num_warps=warps_of(block, 8),
            )  # fmt: skip
        # Entries of this prefix with at least each digit; one more for a digit beyond the last.
        reached = torch.cat([counts.flip(0).cumsum(0).flip(0), counts.new_zeros(1)])
        digit = ((above + reached >= wanted).sum(0, keepdim=True) - 1).clamp(min=0)
        above = above + reached.index_select(0, digit + 1)
        bound = (bound * _DIGITS + digit).int()
    return bound, above


def _value_bits(bits: Int[Tensor, "token entry"]) -> int:
    return 8 * bits.element_size() - 1


@kernel("N_BITS", "RESIDENT", "BLOCK")
def _row_bounds(bits_ptr, bounds_ptr, above_ptr, d_sae, k, N_BITS, RESIDENT, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    bound = 0
    above = 0
    if RESIDENT:
        bits = tl.load(bits_ptr + row * d_sae + columns, mask=columns < d_sae, other=-1).to(tl.int32)
        bound, above = _bound_of(bits, k, N_BITS)
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


@kernel("N_BITS")
def _bound_of(bits, k, N_BITS):
    # The largest positive bound that at least k entries reach, or 0; and how many exceed it.
    bound = 0
    for bit in range(N_BITS):
        trial = bound | (1 << (N_BITS - 1 - bit))
        count = tl.sum((bits >= trial).to(tl.int32), axis=0)
        bound = tl.where(count >= k, trial, bound)
    return bound, tl.sum((bits > bound).to(tl.int32), axis=0)


@kernel("N_BITS", "CHUNK", "BLOCK")
def _listed_bounds(
    bits_ptr, chunks_ptr, counts_ptr, bounds_ptr, above_ptr, d_sae, capacity, k, N_BITS, CHUNK, BLOCK
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    _, bits = listed_entries(bits_ptr, chunks_ptr, row, 0, tl.load(counts_ptr + row), d_sae, capacity, CHUNK, BLOCK)
    bound, above = _bound_of(bits.to(tl.int32), k, N_BITS)
    tl.store(bounds_ptr + row, bound)
    tl.store(above_ptr + row, above)


@kernel()
def _digits(bits, prefix, shift):
    # Counts positive entries with the given higher digits by their next digit of eight bits.
    bits = bits.to(tl.int32)
    shifted = bits >> shift
    inside = (bits > 0) & ((shifted >> 8) == prefix)
    counts = tl.histogram(tl.where(inside, shifted & 255, 0), 256)
    return counts - tl.where(tl.arange(0, 256) == 0, tl.sum((~inside).to(tl.int32), axis=0), 0)


@kernel("BLOCK")
def _digit_histogram(bits_ptr, prefix_ptr, counts_ptr, n_rows, d_sae, shift, BLOCK):
    prefix = tl.load(prefix_ptr)
    counts = tl.zeros([256], tl.int32)
    for place in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        row = tl.full([], 0, tl.int64) + place
        for start in range(0, d_sae, BLOCK):
            at = start + tl.arange(0, BLOCK)
            bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=-1)
            counts += _digits(bits, prefix, shift)
    tl.atomic_add(counts_ptr + tl.arange(0, 256), counts, mask=counts > 0)


@kernel("CHUNK", "BLOCK")
def _listed_histogram(
    bits_ptr, chunks_ptr, listed_ptr, prefix_ptr, counts_ptr, n_rows, d_sae, capacity, shift, CHUNK, BLOCK
):  # fmt: skip
    prefix = tl.load(prefix_ptr)
    counts = tl.zeros([256], tl.int32)
    for place in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        row = tl.full([], 0, tl.int64) + place
        n_listed = tl.load(listed_ptr + row)
        for start in range(0, n_listed, BLOCK // CHUNK):
            _, bits = listed_entries(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
            counts += _digits(bits, prefix, shift)
    tl.atomic_add(counts_ptr + tl.arange(0, 256), counts, mask=counts > 0)
