"""The encoder's input, and how far the batch spreads, from reading the activations once."""
# pyright: basic
# Kernels are a language of their own, without annotations.

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two

_MAX_BLOCK = 1024
_ROWS = 16
"""Tokens that a program takes one after another."""


def centre(
    x: Float[Tensor, "token d_in"], b_dec: Float[Tensor, " d_in"], dtype: torch.dtype
) -> tuple[Float[Tensor, "token d_in"], Float[Tensor, " d_in"], Float[Tensor, ""]]:
    """Take x − b_dec.

    Args:
        x: normalised activations, float32.
        b_dec: decoder bias.
        dtype: of the result.

    Returns:
        The difference; the mean of x over tokens; the mean over tokens of the squared distance from it.
    """
    n_tokens, d_in = x.shape
    block = min(_MAX_BLOCK, power_of_two(d_in))
    programs = (triton.cdiv(n_tokens, _ROWS), triton.cdiv(d_in, block))
    inputs = torch.empty_like(x, dtype=dtype)
    sums, squares = x.new_empty(programs[0], d_in), x.new_empty(programs)
    _centre[programs](
        x, b_dec, inputs, sums, squares, n_tokens, d_in, programs[1], ROWS=_ROWS, BLOCK=block, num_warps=4
    )
    # Both are taken relative to the first token; the mean is no farther from it than tokens are.
    offset = sums.sum(0).div_(n_tokens)
    return inputs, x[0] + offset, squares.sum().div_(n_tokens) - torch.dot(offset, offset)


@kernel("ROWS", "BLOCK")
def _centre(x_ptr, b_dec_ptr, inputs_ptr, sums_ptr, squares_ptr, n_tokens, d_in, n_blocks, ROWS, BLOCK):
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < d_in
    b_dec = tl.load(b_dec_ptr + columns, mask=inside, other=0.0)
    first = tl.load(x_ptr + columns, mask=inside, other=0.0)
    total = tl.zeros([BLOCK], tl.float32)
    squares = tl.zeros([BLOCK], tl.float32)
    for place in range(ROWS):
        row = tl.program_id(0).to(tl.int64) * ROWS + place
        needed = inside & (row < n_tokens)
        x = tl.load(x_ptr + row * d_in + columns, mask=needed, other=0.0)
        tl.store(inputs_ptr + row * d_in + columns, (x - b_dec).to(inputs_ptr.dtype.element_ty), mask=needed)
        distance = tl.where(needed, x - first, 0.0)
        total += distance
        squares += distance * distance
    tl.store(sums_ptr + tl.program_id(0).to(tl.int64) * d_in + columns, total, mask=inside)
    tl.store(squares_ptr + tl.program_id(0) * n_blocks + tl.program_id(1), tl.sum(squares, axis=0))
