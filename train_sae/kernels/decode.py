"""Decoding, with the loss and the gradients of the selected pre-activations, token by token."""
# pyright: basic
# Kernels are a language of their own, without annotations.

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two
from train_sae.kernels.select import Entries

_MAX_BLOCK = 1024
_TILE, _UNALIGNED_TILE = 8, 4
"""Directions that are read at a time: with only one, the memory would wait for the program. Rows whose length is no
multiple of 16 are read number by number; the places of eight such rows do not fit into the registers."""


def prefix_rows(entries: Entries, widths: tuple[int, ...], n_tokens: int) -> Int[Tensor, " slot"]:
    """Row p · n_tokens + t of each entry, where p is the first prefix that holds its latent, and t its token.

    Args:
        entries: a selection.
        widths: widths of the prefixes in ascending order; the last is the whole dictionary.
        n_tokens: tokens of the batch.
    """
    rows = entries.tokens
    for width in widths[:-1]:  # few numbers on the host; a tensor of them would have to be copied to the device
        rows = rows + (entries.latents >= width).int() * n_tokens
    return rows


def prefix_bounds(entries: Entries, widths: tuple[int, ...], n_tokens: int) -> Int[Tensor, "prefixes_and_one token"]:
    """Where the entries begin that a prefix adds at a token; the last row says where the token's entries end.

    Arguments as for `prefix_rows`.
    """
    begins, ends = entries.offsets[:-1], entries.offsets[1:]
    if len(widths) == 1:
        return torch.stack([begins, ends])
    # Entries are in the order of (token, latent), and free slots come after them all.
    stride = widths[-1] + 1
    keys = entries.tokens.long() * stride + entries.latents
    firsts = torch.arange(n_tokens, device=keys.device) * stride
    inner = [torch.searchsorted(keys, firsts + width) for width in widths[:-1]]
    return torch.stack([begins, *inner, ends])


def decode_residuals(
    bounds: Int[Tensor, "prefixes_and_one token"],
    latents: Int[Tensor, " slot"],
    values: Float[Tensor, " slot"],
    dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    target: Float[Tensor, "token d_in"],
    out: Float[Tensor, "row d_in"],
) -> tuple[Float[Tensor, ""], Float[Tensor, " slot"]]:
    """Decode, subtract the target, sum over prefixes, and take the products with the selected directions.

    Row p · n_tokens + t holds the latents that prefix p adds at token t. For each such row, `out` gets the sum over
    prefix p and all longer ones of (reconstruction of the prefix − target). Sums are taken in float32.

    Args:
        bounds: from `prefix_bounds`.
        latents: latents of the entries.
        values: latent activations of the entries, float32.
        dec: decoder directions, in any precision.
        b_dec: decoder bias.
        target: what should be reconstructed.
        out: receives the result, in any precision; one row for each prefix and token.

    Returns:
        Mean over tokens of the squared norm of the last prefix's residual; and for each entry the product of its
        direction with its row of the result, which is undefined in a free slot.
    """
    n_tokens, d_in = target.shape
    block = min(_MAX_BLOCK, power_of_two(d_in))
    n_blocks = triton.cdiv(d_in, block)
    squares = target.new_empty(n_tokens, n_blocks, dtype=torch.float32)
    dots = target.new_empty(n_blocks, len(latents), dtype=torch.float32)
    tile = _UNALIGNED_TILE if d_in % 16 else _TILE
    sizes = (n_tokens, len(bounds) - 1, d_in, n_blocks, len(latents))
    _decode[(n_tokens, n_blocks)](
        bounds, latents, values, dec, b_dec, target, out, squares, dots, *sizes, TILE=tile, BLOCK=block, num_warps=4
    )
    return squares.sum() / n_tokens, dots.sum(0) if n_blocks > 1 else dots[0]


@kernel("TILE", "BLOCK")
def _decode(
    bounds_ptr, latents_ptr, values_ptr, dec_ptr, b_dec_ptr, target_ptr, out_ptr, squares_ptr, dots_ptr,
    n_tokens, n_prefixes, d_in, n_blocks, n_slots, TILE, BLOCK,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < d_in
    total = tl.load(b_dec_ptr + columns, mask=inside, other=0.0)
    total -= tl.load(target_ptr + token * d_in + columns, mask=inside, other=0.0)
    for prefix in range(n_prefixes):
        row = prefix * n_tokens + token
        end = tl.load(bounds_ptr + row + n_tokens)
        for start in range(tl.load(bounds_ptr + row), end, TILE):
            at = start + tl.arange(0, TILE)
            directions = _directions(latents_ptr, dec_ptr, at, end, columns, inside, d_in)
            values = tl.load(values_ptr + at, mask=at < end, other=0.0)
            total += tl.sum(values[:, None] * directions, axis=0)
        tl.store(out_ptr + row * d_in + columns, total.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(squares_ptr + token * n_blocks + tl.program_id(1), tl.sum(total * total, axis=0))
    tl.debug_barrier()  # one thread may read what another wrote
    for back in range(n_prefixes):
        row = (n_prefixes - 1 - back) * n_tokens + token
        if back > 0:
            total += tl.load(out_ptr + row * d_in + columns, mask=inside, other=0.0).to(tl.float32)
            tl.store(out_ptr + row * d_in + columns, total.to(out_ptr.dtype.element_ty), mask=inside)
        end = tl.load(bounds_ptr + row + n_tokens)
        for start in range(tl.load(bounds_ptr + row), end, TILE):
            at = start + tl.arange(0, TILE)
            directions = _directions(latents_ptr, dec_ptr, at, end, columns, inside, d_in)
            dots = tl.sum(directions * total[None, :], axis=1)
            tl.store(dots_ptr + tl.program_id(1).to(tl.int64) * n_slots + at, dots, mask=at < end)


@kernel()
def _directions(latents_ptr, dec_ptr, at, end, columns, inside, d_in):
    latents = tl.load(latents_ptr + at, mask=at < end, other=0).to(tl.int64)
    places = latents[:, None] * d_in + columns[None, :]
    return tl.load(dec_ptr + places, mask=(at < end)[:, None] & inside[None, :], other=0.0).to(tl.float32)
