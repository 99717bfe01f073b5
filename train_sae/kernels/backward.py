"""The backward pass by latents: the gradients of both directions through the transposed index, and their norm.

The gradients of the selected pre-activations come from the decoding. With them, a latent's gradients are weighted sums
of the inputs and residuals of the tokens at which it is selected. The part of the decoder's gradient along its
direction is removed; it is a sum of products of numbers that are known already. So columns are independent of each
other: a program takes a block of columns of one latent, and all latents of a block come before the next block, so that
a block's inputs and residuals fit into the device's cache. Latents with many tokens come first, so that none of them
runs alone at the end. The squares of the written gradients are summed along the way, so clipping need not read the
gradients again.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_MAX_PROGRAMS = 1024
"""Programs of a weighted sum of rows. The number does not depend on the device, so that all devices sum in the same
order."""
_COLUMNS = 512
"""Columns of a block."""
_TILE = 8
"""Tokens that a program reads at a time."""


class Index(NamedTuple):
    """Entries in the order of their latents."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are those from offsets[i] up to offsets[i + 1]."""
    rows: Int[Tensor, " slot"]
    """Row of the residuals; row r belongs to token r mod n_tokens."""
    values: Float[Tensor, " slot"]
    dots: Float[Tensor, " slot"]
    """Product of the latent's direction with the row of the residuals."""
    heavy_first: Int[Tensor, " d_sae"]
    """Latents, those with most entries first."""


class Batch(NamedTuple):
    """What the gradients of an entry are computed from."""

    inputs: Float[Tensor, "token d_in"]
    """x − b_dec, in any precision."""
    residuals: Float[Tensor, "row d_in"]
    """In any precision."""
    scale: float
    """The loss's gradient by the decoded rows is scale · residuals."""


class DeadGradients(NamedTuple):
    """Gradients that dead latents get from AuxK, besides those of the entries."""

    row: Int[Tensor, " d_sae"]
    """Row of a latent in the other three; negative for latents that get none."""
    enc: Float[Tensor, "extra d_in"]
    dec: Float[Tensor, "extra d_in"]
    b_enc: Float[Tensor, " extra"]
    along: Float[Tensor, " extra"]
    """Product of the decoder's gradient with the direction."""


class Gradients(NamedTuple):
    """Gradients of the weights, except the decoder bias."""

    enc: Float[Tensor, "d_sae d_in"]
    dec: Float[Tensor, "d_sae d_in"] | None
    """Without its part along the directions; None if they are frozen."""
    b_enc: Float[Tensor, " d_sae"]
    squares: Float[Tensor, " d_sae"]
    """Sum of the squares of a latent's gradients, those of its bias included."""


def index_by_latent(
    latents: Int[Tensor, " slot"],
    rows: Int[Tensor, " slot"],
    values: Float[Tensor, " slot"],
    dots: Float[Tensor, " slot"],
    d_sae: int,
    n_tokens: int,
) -> Index:
    """Order entries by latent; within a latent they keep their order, and free slots come last."""
    ordered, order = latents.sort(stable=True)
    offsets = torch.searchsorted(ordered, torch.arange(d_sae + 1, dtype=ordered.dtype, device=ordered.device))
    # Short numbers are sorted faster; a latent has at most one entry per token.
    counts = offsets.diff().to(torch.int16 if n_tokens < 2**15 else torch.int32)
    heavy_first = counts.argsort(descending=True, stable=True)
    rows, values, dots = (part.index_select(0, order) for part in (rows, values, dots))
    return Index(offsets, rows, values, dots, heavy_first)


def gradients(
    index: Index,
    batch: Batch,
    dec: Float[Tensor, "d_sae d_in"],
    extra: DeadGradients | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    trains_dec: bool = True,
) -> Gradients:
    """Gradients of the encoder, the decoder and the encoder bias.

    Args:
        index: entries by latent.
        batch: what the gradients are computed from.
        dec: decoder directions, in any precision.
        extra: more gradients.
        dtype: type in which the gradients of the matrices are written; sums are taken in float32.
        trains_dec: whether the directions are trained.
    """
    d_sae, d_in = dec.shape
    block = min(_COLUMNS, power_of_two(d_in))
    n_blocks = triton.cdiv(d_in, block)
    grad_enc = torch.empty(d_sae, d_in, dtype=dtype, device=dec.device)
    grad_dec = torch.empty_like(grad_enc) if trains_dec else None
    b_enc = torch.empty(d_sae, dtype=torch.float32, device=dec.device)
    squares = torch.empty(n_blocks, d_sae, dtype=torch.float32, device=dec.device)
    unused = grad_enc  # stands in for a missing argument
    _gradients[(d_sae, n_blocks)](
        *index, batch.inputs, batch.residuals, dec, *(extra or (index.heavy_first, unused, unused, b_enc, b_enc)),
        grad_enc, unused if grad_dec is None else grad_dec, b_enc, squares, batch.scale, len(batch.inputs), d_in,
        TRAIN_DEC=trains_dec, EXTRA=extra is not None, TILE=_TILE, BLOCK=block, num_warps=max(1, block // 256),
    )  # fmt: skip
    return Gradients(grad_enc, grad_dec, b_enc, squares.sum(0))


def weighted_sum(coefficients: Float[Tensor, " row"], rows: Float[Tensor, "row d_in"]) -> Float[Tensor, " d_in"]:
    """Take coefficients · rows in float32; the rows may have any precision."""
    n_rows, d_in = rows.shape
    n_programs, block = min(_MAX_PROGRAMS, n_rows), power_of_two(d_in)
    parts = torch.empty(n_programs, d_in, dtype=torch.float32, device=rows.device)
    _weighted_sum[(n_programs,)](coefficients, rows, parts, n_rows, d_in, BLOCK=block, num_warps=warps_of(block, 8))
    return parts.sum(0)


@kernel("TRAIN_DEC", "EXTRA", "TILE", "BLOCK")
def _gradients(
    offsets_ptr, rows_ptr, values_ptr, dots_ptr, heavy_ptr, inputs_ptr, residuals_ptr, dec_ptr,
    extra_row_ptr, extra_enc_ptr, extra_dec_ptr, extra_bias_ptr, extra_along_ptr,
    grad_enc_ptr, grad_dec_ptr, grad_bias_ptr, squares_ptr, scale, n_tokens, d_in,
    TRAIN_DEC, EXTRA, TILE, BLOCK,
):  # fmt: skip
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < d_in
    latent = tl.load(heavy_ptr + tl.program_id(0)).to(tl.int64)
    here = latent * d_in + columns
    grad_enc = tl.zeros([BLOCK], tl.float32)
    grad_dec = tl.zeros([BLOCK], tl.float32)
    grad_bias = 0.0
    along = 0.0
    if EXTRA:
        extra_row = tl.load(extra_row_ptr + latent)
        is_extra = extra_row >= 0
        there = extra_row * d_in + columns
        grad_enc += tl.load(extra_enc_ptr + there, mask=inside & is_extra, other=0.0).to(tl.float32)
        grad_bias += tl.load(extra_bias_ptr + extra_row, mask=is_extra, other=0.0)
        if TRAIN_DEC:
            grad_dec += tl.load(extra_dec_ptr + there, mask=inside & is_extra, other=0.0).to(tl.float32)
            along += tl.load(extra_along_ptr + extra_row, mask=is_extra, other=0.0)
    end = tl.load(offsets_ptr + latent + 1)
    for start in range(tl.load(offsets_ptr + latent), end, TILE):
        at = start + tl.arange(0, TILE)
        rows = tl.load(rows_ptr + at, mask=at < end, other=0)
        grad_pre = scale * tl.load(dots_ptr + at, mask=at < end, other=0.0)
        needed = (at < end)[:, None] & inside[None, :]
        places = (rows % n_tokens).to(tl.int64)[:, None] * d_in + columns[None, :]
        inputs = tl.load(inputs_ptr + places, mask=needed, other=0.0).to(tl.float32)
        grad_enc += tl.sum(grad_pre[:, None] * inputs, axis=0)
        grad_bias += tl.sum(grad_pre, axis=0)
        if TRAIN_DEC:
            values = tl.load(values_ptr + at, mask=at < end, other=0.0)
            places = rows.to(tl.int64)[:, None] * d_in + columns[None, :]
            residuals = tl.load(residuals_ptr + places, mask=needed, other=0.0).to(tl.float32)
            grad_dec += tl.sum((scale * values)[:, None] * residuals, axis=0)
            along += tl.sum(values * grad_pre, axis=0)
    squares = tl.sum(grad_enc * grad_enc, axis=0)
    tl.store(grad_enc_ptr + here, grad_enc.to(grad_enc_ptr.dtype.element_ty), mask=inside)
    if TRAIN_DEC:
        direction = tl.load(dec_ptr + here, mask=inside, other=0.0).to(tl.float32)
        grad_dec -= along * direction
        squares += tl.sum(grad_dec * grad_dec, axis=0)
        tl.store(grad_dec_ptr + here, grad_dec.to(grad_dec_ptr.dtype.element_ty), mask=inside)
    if tl.program_id(1) == 0:
        squares += grad_bias * grad_bias
        tl.store(grad_bias_ptr + latent, grad_bias)
    tl.store(squares_ptr + tl.program_id(1) * tl.num_programs(0) + latent, squares)


@kernel("BLOCK")
def _weighted_sum(coefficients_ptr, rows_ptr, parts_ptr, n_rows, d_in, BLOCK):
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    total = tl.zeros([BLOCK], tl.float32)
    for place in range(tl.program_id(0), n_rows, tl.num_programs(0)):
        row = tl.full([], 0, tl.int64) + place
        values = tl.load(rows_ptr + row * d_in + columns, mask=inside, other=0.0).to(tl.float32)
        total += tl.load(coefficients_ptr + row) * values
    tl.store(parts_ptr + tl.program_id(0) * d_in + columns, total, mask=inside)
