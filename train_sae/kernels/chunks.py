"""Chunks of a row: their maxima from reading the row once, and lists of chunks that are read again.

The n largest entries of a row lie in the n chunks with the largest maxima (of chunks with equal maxima at the boundary,
in the first ones), so that later work reads no more than n chunks. Entries are bit patterns: those of positive
floating-point numbers, read as integers, are in the order of the numbers, and those of negative ones are negative.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_MAX_BLOCK = 1024
_CHUNK_BLOCK = 4096
"""Entries that a program reads for their chunks' maxima."""
_MIN_CHUNK, _MAX_CHUNK = 8, 64


class ListedChunks(NamedTuple):
    """Chunks of each row that are read again, in the order of their latents."""

    chunks: Int[Tensor, "token slot"]
    counts: Int[Tensor, " token"]
    length: int
    """Entries of a chunk; the last one of a row may be shorter."""


def chunk_maxima(bits: Int[Tensor, "token d_sae"], k: int) -> tuple[Int[Tensor, "token chunk"], int]:
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


def list_chunks(
    maxima: Int[Tensor, "token chunk"],
    bounds: Int[Tensor, " token"],
    needs: Int[Tensor, " token"],
    capacity: int,
    length: int,
) -> ListedChunks:
    """List the chunks whose maxima exceed the row's bound, and the first `needs` that equal it."""
    n_tokens, n_chunks = maxima.shape
    chunks = bounds.new_empty(n_tokens, capacity)
    counts = torch.empty_like(bounds)
    _list_chunks[(n_tokens,)](maxima, bounds, needs, chunks, counts, n_chunks, capacity, **row_shape(n_chunks))
    return ListedChunks(chunks, counts, length)


def row_shape(n_entries: int) -> dict[str, int]:
    """Launch constants of programs that walk through a row in blocks."""
    block = min(_MAX_BLOCK, power_of_two(n_entries))
    return {"BLOCK": block, "num_warps": warps_of(block, 8)}


def listed_block(length: int) -> int:
    """Entries of listed chunks that a program takes at a time."""
    return max(_MAX_BLOCK, length)


def _chunk_length(d_sae: int, k: int) -> int:
    """A length for which a row has about as many maxima as its winning chunks have entries."""
    wanted = math.sqrt(d_sae / k)
    return min(_MAX_CHUNK, max(_MIN_CHUNK, triton.next_power_of_2(math.ceil(wanted / math.sqrt(2)))))


@kernel("CHUNK", "BLOCK")
def _chunk_maxima(bits_ptr, maxima_ptr, d_sae, n_chunks, CHUNK, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = chunks[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]
    bits = tl.load(bits_ptr + row * d_sae + at, mask=at < d_sae, other=0)
    tl.store(maxima_ptr + row * n_chunks + chunks, tl.max(bits, axis=1), mask=chunks < n_chunks)


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
        kept, ties = is_kept(maxima, bound, need, tied)
        slots = taken + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(chunks_ptr + row * capacity + slots, at, mask=kept)
        taken += tl.sum(kept.to(tl.int32), axis=0)
        tied += ties
    tl.store(counts_ptr + row, taken)


@kernel("CHUNK", "BLOCK")
def listed_entries(bits_ptr, chunks_ptr, row, start, count, d_sae, capacity, CHUNK, BLOCK):
    """Entries of a row's listed chunks from one of them on, in the order of their latents; −1 after the last."""
    entries = tl.arange(0, BLOCK)
    slots = start + entries // CHUNK
    chunks = tl.load(chunks_ptr + row * capacity + slots, mask=slots < count, other=0)
    at = chunks * CHUNK + entries % CHUNK
    bits = tl.load(bits_ptr + row * d_sae + at, mask=(slots < count) & (at < d_sae), other=-1)
    return at, bits


@kernel()
def is_kept(bits, bound, need, tied):
    """Which entries exceed the bound, or are among the first `need` that equal it; and how many equal it."""
    ties = ((bits == bound) & (bound > 0)).to(tl.int32)
    before = tied + tl.cumsum(ties, axis=0) - ties
    return (bits > bound) | ((ties > 0) & (before < need)), tl.sum(ties, axis=0)
