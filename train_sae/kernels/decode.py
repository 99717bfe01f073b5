"""Decoding with the loss in one pass, and the products that the selected latents' gradients are made of."""
# pyright: basic
# Kernels are a language of their own, without annotations.

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two

_MAX_BLOCK = 1024


def decode_residuals(
    offsets: Int[Tensor, " rows_and_one"],
    latents: Int[Tensor, " slot"],
    values: Float[Tensor, " slot"],
    dec: Float[Tensor, "d_sae d_in"],
    target: Float[Tensor, "token d_in"],
    out: Float[Tensor, "row d_in"],
) -> Float[Tensor, ""]:
    """Decode, subtract the target, and sum over prefixes.

    Row p · n_tokens + t holds the latents that prefix p adds at token t. Into `out` goes, for each such row, the sum
    over prefixes p and longer of (reconstruction of the prefix − target).

    Args:
        offsets: where each row's entries begin and end.
        latents: latents of the entries.
        values: latent activations of the entries, float32.
        dec: decoder directions.
        target: what is to be reconstructed.
        out: where the result goes; as many rows as `offsets` has, a multiple of the tokens.

    Returns:
        Mean over tokens of the squared norm of the last prefix's residual.
    """
    n_tokens, d_in = target.shape
    n_prefixes = (offsets.numel() - 1) // n_tokens
    block = min(_MAX_BLOCK, power_of_two(d_in))
    n_blocks = triton.cdiv(d_in, block)
    squares = target.new_empty(n_tokens, n_blocks, dtype=torch.float32)
    sizes = (n_tokens, n_prefixes, d_in, n_blocks)
    _decode[(n_tokens, n_blocks)](offsets, latents, values, dec, target, out, squares, *sizes, BLOCK=block)
    return squares.sum() / n_tokens


def selected_products(
    offsets: Int[Tensor, " rows_and_one"],
    latents: Int[Tensor, " slot"],
    values: Float[Tensor, " slot"],
    dec: Float[Tensor, "d_sae d_in"],
    residuals: Float[Tensor, "row d_in"],
    scale: float,
) -> Float[Tensor, " slot"]:
    """Gradients of the pre-activations: scale · residual · decoder direction, where the latent is positive, else 0.

    Args:
        offsets: where each row's entries begin and end.
        latents: latents of the entries.
        values: latent activations of the entries.
        dec: decoder directions.
        residuals: one row for each row of entries.
        scale: factor of the gradients.
    """
    n_rows, d_in = residuals.shape
    products = torch.zeros_like(values)
    _products[(n_rows,)](offsets, latents, values, dec, residuals, products, scale, d_in, BLOCK=power_of_two(d_in))
    return products


@kernel("BLOCK")
def _decode(
    offsets_ptr, latents_ptr, values_ptr, dec_ptr, target_ptr, out_ptr, squares_ptr,
    n_tokens, n_prefixes, d_in, n_blocks, BLOCK,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < d_in
    total = -tl.load(target_ptr + token * d_in + columns, mask=inside, other=0.0).to(tl.float32)
    for prefix in range(n_prefixes):
        row = prefix * n_tokens + token
        begin = tl.load(offsets_ptr + row)
        end = tl.load(offsets_ptr + row + 1)
        for entry in range(begin, end):
            latent = tl.load(latents_ptr + entry)
            direction = tl.load(dec_ptr + latent * d_in + columns, mask=inside, other=0.0)
            total += tl.load(values_ptr + entry) * direction
        tl.store(out_ptr + row * d_in + columns, total, mask=inside)
    tl.store(squares_ptr + token * n_blocks + tl.program_id(1), tl.sum(total * total, axis=0))
    for back in range(1, n_prefixes):
        row = (n_prefixes - 1 - back) * n_tokens + token
        total += tl.load(out_ptr + row * d_in + columns, mask=inside, other=0.0)
        tl.store(out_ptr + row * d_in + columns, total, mask=inside)


@kernel("BLOCK")
def _products(offsets_ptr, latents_ptr, values_ptr, dec_ptr, residuals_ptr, products_ptr, scale, d_in, BLOCK):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    residual = tl.load(residuals_ptr + row * d_in + columns, mask=inside, other=0.0)
    begin = tl.load(offsets_ptr + row)
    end = tl.load(offsets_ptr + row + 1)
    for entry in range(begin, end):
        latent = tl.load(latents_ptr + entry)
        direction = tl.load(dec_ptr + latent * d_in + columns, mask=inside, other=0.0)
        product = tl.sum(residual * direction, axis=0) * scale
        tl.store(products_ptr + entry, tl.where(tl.load(values_ptr + entry) > 0, product, 0.0))
