"""The backward pass by latents: gradients through the transposed index, and Adam on them without writing them down.

One program has one latent: it sums the rows of the tokens at which the latent is selected, removes the part of the
decoder's gradient along the direction, takes Adam's step on both directions and rescales the decoder's to unit norm.
Latents with many tokens come first, so that none of them is left running alone at the end.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two


class Index(NamedTuple):
    """Entries in the order of their latents."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are at the places offsets[i] up to offsets[i + 1] of `order`."""
    order: Int[Tensor, " slot"]
    heavy_first: Int[Tensor, " d_sae"]
    """Latents, those with most entries first."""


class Terms(NamedTuple):
    """What an entry adds to the gradients of its latent."""

    tokens: Int[Tensor, " slot"]
    """Row of the centred inputs, which `grad_pre` multiplies in the encoder's gradient."""
    rows: Int[Tensor, " slot"]
    """Row of the residuals, which `coefficients` multiply in the decoder's gradient."""
    grad_pre: Float[Tensor, " slot"]
    coefficients: Float[Tensor, " slot"]


class Moments(NamedTuple):
    """A matrix that Adam updates, with its moments."""

    weight: Float[Tensor, "d_sae d_in"]
    mean: Float[Tensor, "d_sae d_in"]
    square: Float[Tensor, "d_sae d_in"]


class Adam(NamedTuple):
    """The numbers of one step of Adam."""

    step_size: float
    """lr / (1 − β₁ᵗ)"""
    correction: float
    """sqrt(1 − β₂ᵗ)"""
    beta1: float
    beta2: float
    eps: float


def index_by_latent(latents: Int[Tensor, " slot"], d_sae: int) -> Index:
    """Order entries by latent; within a latent they keep their order."""
    counts = latents.new_zeros(d_sae + 1).index_add_(0, latents + 1, torch.ones_like(latents))
    order = latents.argsort(stable=True)
    return Index(counts.cumsum(0), order, counts[1:].argsort(descending=True, stable=True))


def bias_gradient(index: Index, grad_pre: Float[Tensor, " slot"]) -> Float[Tensor, " d_sae"]:
    """Sum of the pre-activations' gradients of each latent."""
    sums = grad_pre.new_empty(index.heavy_first.numel())
    _bias[(sums.numel(),)](index.heavy_first, index.offsets, index.order, grad_pre, sums, BLOCK=128)
    return sums


def direction_gradients(
    index: Index,
    terms: Terms,
    centred: Float[Tensor, "token d_in"],
    residuals: Float[Tensor, "row d_in"],
    enc: Float[Tensor, "d_sae d_in"],
    dec: Float[Tensor, "d_sae d_in"],
) -> None:
    """Write the gradients of both matrices, the decoder's as it is before its projection.

    Args:
        index: entries by latent.
        terms: what each entry adds.
        centred: x − b_dec.
        residuals: what the decoder's gradients are made of.
        enc: where the encoder's gradient goes.
        dec: where the decoder's gradient goes.
    """
    d_sae, d_in = enc.shape
    numbers = (0.0, 1.0, 0.0, 0.0, 0.0, d_in)
    _latents[(d_sae,)](
        *index, *terms, centred, residuals, enc, enc, enc, dec, dec, dec, enc, *numbers,
        FUSED=False, TRAIN_DEC=True, SHADOW=False, BLOCK=power_of_two(d_in),
    )  # fmt: skip


def update_directions(
    index: Index,
    terms: Terms,
    centred: Float[Tensor, "token d_in"],
    residuals: Float[Tensor, "row d_in"],
    enc: Moments,
    dec: Moments | Float[Tensor, "d_sae d_in"],
    shadow: Float[Tensor, "d_sae d_in"] | None,
    adam: Adam,
) -> None:
    """Take Adam's step on both matrices; their gradients are never in memory.

    Args:
        index: entries by latent.
        terms: what each entry adds.
        centred: x − b_dec.
        residuals: what the decoder's gradients are made of.
        enc: encoder directions.
        dec: decoder directions, or the matrix alone where it is frozen.
        shadow: where a copy of the new encoder directions in its precision goes.
        adam: the step.
    """
    d_sae, d_in = enc.weight.shape
    frozen = isinstance(dec, Tensor)
    decoder = Moments(dec, dec, dec) if isinstance(dec, Tensor) else dec
    _latents[(d_sae,)](
        *index, *terms, centred, residuals, *enc, *decoder, enc.weight if shadow is None else shadow, *adam, d_in,
        FUSED=True, TRAIN_DEC=not frozen, SHADOW=shadow is not None, BLOCK=power_of_two(d_in),
    )  # fmt: skip


@kernel("BLOCK")
def _bias(heavy_ptr, offsets_ptr, order_ptr, grad_pre_ptr, sums_ptr, BLOCK):
    latent = tl.load(heavy_ptr + tl.program_id(0))
    begin = tl.load(offsets_ptr + latent)
    end = tl.load(offsets_ptr + latent + 1)
    sums = tl.zeros([BLOCK], tl.float32)
    for start in range(begin, end, BLOCK):
        at = start + tl.arange(0, BLOCK)
        entries = tl.load(order_ptr + at, mask=at < end, other=0)
        sums += tl.load(grad_pre_ptr + entries, mask=at < end, other=0.0)
    tl.store(sums_ptr + latent, tl.sum(sums, axis=0))


@kernel("FUSED", "TRAIN_DEC", "SHADOW", "BLOCK")
def _latents(
    offsets_ptr, order_ptr, heavy_ptr, tokens_ptr, rows_ptr, grad_pre_ptr, coefficients_ptr, centred_ptr, residuals_ptr,
    enc_ptr, enc_mean_ptr, enc_square_ptr, dec_ptr, dec_mean_ptr, dec_square_ptr, shadow_ptr,
    step_size, correction, beta1, beta2, eps, d_in, FUSED, TRAIN_DEC, SHADOW, BLOCK,
):  # fmt: skip
    latent = tl.load(heavy_ptr + tl.program_id(0))
    begin = tl.load(offsets_ptr + latent)
    end = tl.load(offsets_ptr + latent + 1)
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    here = latent * d_in + columns
    grad_enc = tl.zeros([BLOCK], tl.float32)
    grad_dec = tl.zeros([BLOCK], tl.float32)
    for at in range(begin, end):
        entry = tl.load(order_ptr + at)
        token = tl.load(tokens_ptr + entry)
        x = tl.load(centred_ptr + token * d_in + columns, mask=inside, other=0.0)
        grad_enc += tl.load(grad_pre_ptr + entry) * x
        if TRAIN_DEC:
            row = tl.load(rows_ptr + entry)
            residual = tl.load(residuals_ptr + row * d_in + columns, mask=inside, other=0.0)
            grad_dec += tl.load(coefficients_ptr + entry) * residual
    if FUSED:
        mean = tl.load(enc_mean_ptr + here, mask=inside, other=0.0)
        square = tl.load(enc_square_ptr + here, mask=inside, other=0.0)
        mean += (1 - beta1) * (grad_enc - mean)
        square = beta2 * square + (1 - beta2) * grad_enc * grad_enc
        weight = tl.load(enc_ptr + here, mask=inside, other=0.0)
        weight -= step_size * mean / (tl.sqrt(square) / correction + eps)
        tl.store(enc_ptr + here, weight, mask=inside)
        tl.store(enc_mean_ptr + here, mean, mask=inside)
        tl.store(enc_square_ptr + here, square, mask=inside)
        if SHADOW:
            tl.store(shadow_ptr + here, weight.to(shadow_ptr.dtype.element_ty), mask=inside)
        if TRAIN_DEC:
            weight = tl.load(dec_ptr + here, mask=inside, other=0.0)
            grad_dec -= tl.sum(grad_dec * weight, axis=0) * weight
            mean = tl.load(dec_mean_ptr + here, mask=inside, other=0.0)
            square = tl.load(dec_square_ptr + here, mask=inside, other=0.0)
            mean += (1 - beta1) * (grad_dec - mean)
            square = beta2 * square + (1 - beta2) * grad_dec * grad_dec
            weight -= step_size * mean / (tl.sqrt(square) / correction + eps)
            weight = weight / tl.sqrt(tl.sum(tl.where(inside, weight * weight, 0.0), axis=0))
            tl.store(dec_ptr + here, weight, mask=inside)
            tl.store(dec_mean_ptr + here, mean, mask=inside)
            tl.store(dec_square_ptr + here, square, mask=inside)
    else:
        tl.store(enc_ptr + here, grad_enc, mask=inside)
        tl.store(dec_ptr + here, grad_dec, mask=inside)
