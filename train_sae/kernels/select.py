"""TopK and BatchTopK on the device: chunk maxima in one reading, then an exact look at the winning chunks only.

The bit patterns of positive floating-point numbers, read as integers, are in the order of the numbers, and those of
negative ones are negative. All pre-activations are read once, for the maximum of each chunk of a row. The n largest
entries lie in the n chunks with the largest maxima (of chunks with equal maxima at the boundary, in the first ones), so
that everything after that reads no more than n chunks. TopK finds each row's bounds bit by bit, BatchTopK those of the
batch from histograms of one byte after the other. Both are exact, and of equal values at the boundary the first by
(token, latent) are taken, as everywhere.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_INTEGERS = {2: torch.int16, 4: torch.int32}
_DIGITS = 256
_MAX_BLOCK = 1024
_RESIDENT = 32768
"""A row of at most so many entries stays in registers while its bound is searched."""
_CHUNK_BLOCK = 4096
"""Entries that a program reads for their chunks' maxima."""
_MIN_CHUNK, _MAX_CHUNK = 8, 64
_PROGRAMS = 1024
"""Programs that count the digits of all rows: few, as each adds its counts to those of all."""


class Entries(NamedTuple):
    """A selection in memory of fixed size: its entries in the order of (token, latent), then free slots.

    Every entry is positive. A free slot has the value 0, and the token and the latent behind the last ones.
    """

    offsets: Int[Tensor, " rows_and_one"]
    """The entries of token t are those from offsets[t] up to offsets[t + 1]."""
    tokens: Int[Tensor, " slot"]
    latents: Int[Tensor, " slot"]
    values: Float[Tensor, " slot"]


class _Listed(NamedTuple):
    """Chunks of each row that are looked at once more, in the order of their latents."""

    chunks: Int[Tensor, "token slot"]
    counts: Int[Tensor, " token"]
    length: int
    """Entries of a chunk; the last one of a row may be shorter."""


def select_topk(pre: Float[Tensor, "token d_sae"], k: int) -> Entries:
    """Select the k largest positive pre-activations of each token, in k × batch slots.

    Args:
        pre: pre-activations, bfloat16 or float32.
        k: active latents per token.
    """
    bits = pre.view(_INTEGERS[pre.element_size()])
    n_tokens, d_sae = bits.shape
    maxima, length = _chunk_maxima_of(bits, k)
    bounds, above = _bounds(maxima, k)
    listed = _list(maxima, bounds, k - above, min(k, maxima.shape[1]), length)
    bounds, above = torch.empty_like(bounds), torch.empty_like(above)
    block = power_of_two(listed.chunks.shape[1] * length)
    _listed_bounds[(n_tokens,)](
        bits, listed.chunks, listed.counts, bounds, above, d_sae, listed.chunks.shape[1], k,
        N_BITS=_value_bits(bits), CHUNK=length, BLOCK=block, num_warps=warps_of(block, 16),
    )  # fmt: skip
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
    maxima, length = _chunk_maxima_of(bits, k)
    bound, _ = _batch_bound(maxima, wanted, None)
    everywhere = bound.expand(n_tokens).contiguous()
    # All chunks that reach the bound, where a few of equal maxima may be too many: a row has room for all its chunks.
    listed = _list(maxima, (everywhere - 1).clamp_(min=0), torch.zeros_like(everywhere), maxima.shape[1], length)
    bound, above = _batch_bound(bits, wanted, listed)
    everywhere = bound.expand(n_tokens).contiguous()
    more, ties = torch.empty_like(everywhere), torch.empty_like(everywhere)
    block = _listed_block(length)
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
    bounds, above = _bounds(bits, k)
    kept, (n_tokens, d_sae) = torch.empty_like(bits), bits.shape
    _keep_selected[(n_tokens,)](bits, bounds, k - above, kept, d_sae, **_shape(d_sae))
    return kept.view(pre.dtype)


def _chunk_length(d_sae: int, k: int) -> int:
    """About what makes the maxima of a row as many as the entries of its winning chunks."""
    wanted = math.sqrt(d_sae / k)
    return min(_MAX_CHUNK, max(_MIN_CHUNK, triton.next_power_of_2(math.ceil(wanted / math.sqrt(2)))))


def _chunk_maxima_of(bits: Int[Tensor, "token d_sae"], k: int) -> tuple[Int[Tensor, "token chunk"], int]:
    """The largest bit pattern of each chunk of a row, and the length of a chunk."""
    n_tokens, d_sae = bits.shape
    length = _chunk_length(d_sae, k)
    n_chunks = triton.cdiv(d_sae, length)
    maxima = bits.new_empty(n_tokens, n_chunks)
    block = min(_CHUNK_BLOCK // length, power_of_two(n_chunks))
    _chunk_maxima[(n_tokens, triton.cdiv(n_chunks, block))](
        bits, maxima, d_sae, n_chunks, CHUNK=length, BLOCK=block, num_warps=4
    )
    return maxima, length


def _list(
    maxima: Int[Tensor, "token chunk"],
    bounds: Int[Tensor, " token"],
    needs: Int[Tensor, " token"],
    capacity: int,
    length: int,
) -> _Listed:
    """List the chunks whose maxima exceed the row's bound, and the first so many that equal it."""
    n_tokens, n_chunks = maxima.shape
    chunks = bounds.new_empty(n_tokens, capacity)
    counts = torch.empty_like(bounds)
    _list_chunks[(n_tokens,)](maxima, bounds, needs, chunks, counts, n_chunks, capacity, **_shape(n_chunks))
    return _Listed(chunks, counts, length)


def _bounds(bits: Int[Tensor, "token entry"], k: int) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """The largest positive bound that at least k entries of each row reach, or 0; and how many exceed it."""
    n_tokens, n_entries = bits.shape
    bounds, above = bits.new_empty(n_tokens, dtype=torch.int32), bits.new_empty(n_tokens, dtype=torch.int32)
    whole = power_of_two(n_entries)
    is_resident = whole <= _RESIDENT
    shape = {"BLOCK": whole, "num_warps": warps_of(whole, 64)} if is_resident else _shape(n_entries)
    _row_bounds[(n_tokens,)](bits, bounds, above, n_entries, k, N_BITS=_value_bits(bits), RESIDENT=is_resident, **shape)
    return bounds, above


def _batch_bound(
    bits: Int[Tensor, "token entry"], wanted: int, listed: _Listed | None
) -> tuple[Int[Tensor, " 1"], Int[Tensor, " 1"]]:
    """The largest positive bound that so many entries of all rows reach, or 0; and how many exceed it.

    Args:
        bits: the entries.
        wanted: how many are to reach it.
        listed: the chunks to which the search is confined.
    """
    n_tokens, n_entries = bits.shape
    bound, above = bits.new_zeros(1, dtype=torch.int32), bits.new_zeros(1, dtype=torch.int64)
    programs = (min(_PROGRAMS, n_tokens),)
    for shift in range(8 * (bits.element_size() - 1), -1, -8):
        counts = bits.new_zeros(_DIGITS, dtype=torch.int32)
        if listed is None:
            _digit_histogram[programs](bits, bound, counts, n_tokens, n_entries, shift, **_shape(n_entries))
        else:
            block = _listed_block(listed.length)
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


def _shape(n_entries: int) -> dict[str, int]:
    """Of the programs that walk through a row in blocks."""
    block = min(_MAX_BLOCK, power_of_two(n_entries))
    return {"BLOCK": block, "num_warps": warps_of(block, 8)}


def _listed_block(length: int) -> int:
    """Entries of listed chunks that a program takes at a time."""
    return max(_MAX_BLOCK, length)


def _offsets(counts: Int[Tensor, " token"]) -> Int[Tensor, " rows_and_one"]:
    ends = counts.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends])


def _write(
    bits: Int[Tensor, "token d_sae"],
    listed: _Listed,
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
    block = _listed_block(listed.length)
    _write_listed[(n_tokens,)](
        bits, listed.chunks, listed.counts, bounds, needs, offsets, tokens, latents, values,
        d_sae, listed.chunks.shape[1], CHUNK=listed.length, BLOCK=block, num_warps=warps_of(block, 8),
    )  # fmt: skip
    return Entries(offsets, tokens, latents, values.view(dtype).float())


@kernel("CHUNK", "BLOCK")
def _chunk_maxima(bits_ptr, maxima_ptr, d_sae, n_chunks, CHUNK, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = chunks[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=0)
    tl.store(maxima_ptr + row * n_chunks + chunks, tl.max(bits, axis=1), mask=chunks < n_chunks)


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


@kernel("BLOCK")
def _list_chunks(maxima_ptr, bounds_ptr, needs_ptr, chunks_ptr, counts_ptr, n_chunks, capacity, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    bound = tl.load(bounds_ptr + row)
    need = tl.load(needs_ptr + row)
    taken = 0
    tied = 0
    for start in range(0, n_chunks, BLOCK):
        at = start + tl.arange(0, BLOCK)
        maxima = tl.load(maxima_ptr + row * n_chunks + at, mask=at < n_chunks, other=-1).to(tl.int32)
        kept, ties = _is_kept(maxima, bound, need, tied)
        slots = taken + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(chunks_ptr + row * capacity + slots, at, mask=kept)
        taken += tl.sum(kept.to(tl.int32), axis=0)
        tied += ties
    tl.store(counts_ptr + row, taken)


@kernel("CHUNK", "BLOCK")
def _listed(bits_ptr, chunks_ptr, row, start, count, d_sae, capacity, CHUNK, BLOCK):
    # Entries of a row's listed chunks from one of them on, in the order of their latents; −1 behind the last.
    entries = tl.arange(0, BLOCK)
    slots = start + entries // CHUNK
    chunks = tl.load(chunks_ptr + row * capacity + slots, mask=slots < count, other=0)
    at = chunks * CHUNK + entries % CHUNK
    bits = tl.load(bits_ptr + row * d_sae + at, mask=(slots < count) & (at < d_sae), other=-1)
    return at, bits


@kernel("N_BITS", "CHUNK", "BLOCK")
def _listed_bounds(
    bits_ptr, chunks_ptr, counts_ptr, bounds_ptr, above_ptr, d_sae, capacity, k, N_BITS, CHUNK, BLOCK
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    _, bits = _listed(bits_ptr, chunks_ptr, row, 0, tl.load(counts_ptr + row), d_sae, capacity, CHUNK, BLOCK)
    bound, above = _bound_of(bits.to(tl.int32), k, N_BITS)
    tl.store(bounds_ptr + row, bound)
    tl.store(above_ptr + row, above)


@kernel()
def _digits(bits, prefix, shift):
    # How many positive entries with the given higher digits have each next digit of eight bits.
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
            _, bits = _listed(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
            counts += _digits(bits, prefix, shift)
    tl.atomic_add(counts_ptr + tl.arange(0, 256), counts, mask=counts > 0)


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
        _, stored = _listed(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
        bits = stored.to(tl.int32)
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
        at, stored = _listed(bits_ptr, chunks_ptr, row, start, n_listed, d_sae, capacity, CHUNK, BLOCK)
        kept, ties = _is_kept(stored.to(tl.int32), bound, need, tied)
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
        kept, ties = _is_kept(stored.to(tl.int32), bound, need, tied)
        tl.store(kept_ptr + row * d_sae + at, tl.where(kept, stored, 0), mask=at < d_sae)
        tied += ties
