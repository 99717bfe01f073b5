"""The backward pass by latents: gradients through the transposed index, and Adam on them without writing them down.

A program takes one latent after the other. It reads the residuals and inputs of the tokens at which the latent is
selected, which give the gradients of its pre-activations, of its bias and of both directions at once; removes the part
of the decoder's gradient along the direction, takes Adam's step on both and rescales the decoder's to unit norm. Before
a direction of the encoder changes it is added, times the bias's gradient, to what the decoder bias gets through the
encoder. Latents with many tokens come first, so that none of them is left running alone at the end.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import torch
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_MAX_PROGRAMS = 4096
"""Each leaves a row of sums behind. A number of its own, not the device's, so that devices sum in the same order."""
_TILE_PER_THREAD = 32
"""Of the residuals and of the inputs that a thread reads at a time."""
_MAX_TILE = 16


class Index(NamedTuple):
    """Entries in the order of their latents."""

    offsets: Int[Tensor, " latents_and_one"]
    """The entries of latent i are those from offsets[i] up to offsets[i + 1]."""
    rows: Int[Tensor, " slot"]
    """Row of the residuals; row r belongs to token r mod n_tokens."""
    values: Float[Tensor, " slot"]
    heavy_first: Int[Tensor, " d_sae"]
    """Latents, those with most entries first."""


class Batch(NamedTuple):
    """What the gradients of an entry are made of."""

    inputs: Float[Tensor, "token d_in"]
    """x − b_dec, in any precision."""
    residuals: Float[Tensor, "row d_in"]
    scale: float
    """The loss's gradient by the decoded rows is scale · residuals."""


class Extra(NamedTuple):
    """Gradients that some latents get beside those of the entries."""

    row: Int[Tensor, " d_sae"]
    """Row of a latent in the other three; negative for those that get none."""
    enc: Float[Tensor, "extra d_in"]
    dec: Float[Tensor, "extra d_in"]
    b_enc: Float[Tensor, " extra"]


class Biases(NamedTuple):
    """What the biases get."""

    b_enc: Float[Tensor, " d_sae"]
    """Gradient of the encoder bias."""
    through_encoder: Float[Tensor, " d_in"]
    """That gradient times the encoder's directions as they were before the step."""


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
    mean_rate: float
    """1 − β₁"""
    square_rate: float
    """1 − β₂"""
    eps: float


def index_by_latent(
    latents: Int[Tensor, " slot"], rows: Int[Tensor, " slot"], values: Float[Tensor, " slot"], d_sae: int
) -> Index:
    """Order entries by latent; within a latent they keep their order, and free slots come last."""
    ordered, order = latents.sort(stable=True)
    offsets = torch.searchsorted(ordered, torch.arange(d_sae + 1, dtype=ordered.dtype, device=ordered.device))
    heavy_first = offsets.diff().argsort(descending=True, stable=True)
    return Index(offsets, rows.index_select(0, order), values.index_select(0, order), heavy_first)


def direction_gradients(
    index: Index,
    batch: Batch,
    enc: tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_sae d_in"]],
    dec: tuple[Float[Tensor, "d_sae d_in"], Float[Tensor, "d_sae d_in"]] | Float[Tensor, "d_sae d_in"],
    extra: Extra | None = None,
) -> Biases:
    """Write the gradients of both matrices, the decoder's as it is before its projection.

    Args:
        index: entries by latent.
        batch: what the gradients are made of.
        enc: encoder directions, and where their gradient goes.
        dec: decoder directions, and where their gradient goes; the directions alone where they are frozen.
        extra: more gradients.
    """
    directions, grad_dec = (dec, None) if isinstance(dec, Tensor) else dec
    weights = Moments(enc[0], enc[0], enc[0]), Moments(directions, directions, directions)
    adam = Adam(0.0, 1.0, 0.0, 0.0, 0.0)
    return _launch(index, batch, *weights, None, adam, extra, (enc[1], grad_dec), trains_dec=grad_dec is not None)


def update_directions(
    index: Index,
    batch: Batch,
    enc: Moments,
    dec: Moments | Float[Tensor, "d_sae d_in"],
    shadow: Float[Tensor, "d_sae d_in"] | None,
    adam: Adam,
    extra: Extra | None = None,
) -> Biases:
    """Take Adam's step on both matrices; their gradients are never in memory.

    Args:
        index: entries by latent.
        batch: what the gradients are made of.
        enc: encoder directions.
        dec: decoder directions, or the matrix alone where it is frozen.
        shadow: where a copy of the new encoder directions in its precision goes.
        adam: the step.
        extra: more gradients.
    """
    decoder = Moments(dec, dec, dec) if isinstance(dec, Tensor) else dec
    return _launch(index, batch, enc, decoder, shadow, adam, extra, None, trains_dec=not isinstance(dec, Tensor))


def _launch(
    index: Index,
    batch: Batch,
    enc: Moments,
    dec: Moments,
    shadow: Tensor | None,
    adam: Adam,
    extra: Extra | None,
    grads: tuple[Tensor, Tensor | None] | None,
    *,
    trains_dec: bool,
) -> Biases:
    (d_sae, d_in), n_tokens = enc.weight.shape, len(batch.inputs)
    n_programs, block = min(_MAX_PROGRAMS, d_sae), power_of_two(d_in)
    n_warps = warps_of(block, 8)
    tile = max(1, min(_MAX_TILE, 32 * n_warps * _TILE_PER_THREAD // block))
    b_enc = batch.residuals.new_empty(d_sae, dtype=torch.float32)
    through = batch.residuals.new_empty((n_programs, d_in), dtype=torch.float32)
    unused = enc.weight  # in the place of what is not there
    grad_enc, grad_dec = grads or (unused, unused)
    _latents[(n_programs,)](
        *index, batch.inputs, batch.residuals, *(extra or (index.heavy_first, unused, unused, b_enc)), *enc, *dec,
        unused if shadow is None else shadow, grad_enc, unused if grad_dec is None else grad_dec, b_enc, through,
        batch.scale, *adam, d_sae, n_tokens, d_in,
        FUSED=grads is None, TRAIN_DEC=trains_dec, SHADOW=shadow is not None, EXTRA=extra is not None,
        TILE=tile, BLOCK=block, num_warps=n_warps,
    )  # fmt: skip
    return Biases(b_enc, through.sum(0))


@kernel("FUSED", "TRAIN_DEC", "SHADOW", "EXTRA", "TILE", "BLOCK")
def _latents(
    offsets_ptr, rows_ptr, values_ptr, heavy_ptr, inputs_ptr, residuals_ptr,
    extra_row_ptr, extra_enc_ptr, extra_dec_ptr, extra_bias_ptr,
    enc_ptr, enc_mean_ptr, enc_square_ptr, dec_ptr, dec_mean_ptr, dec_square_ptr,
    shadow_ptr, grad_enc_ptr, grad_dec_ptr, grad_bias_ptr, through_ptr,
    scale, step_size, correction, mean_rate, square_rate, eps, d_sae, n_tokens, d_in,
    FUSED, TRAIN_DEC, SHADOW, EXTRA, TILE, BLOCK,
):  # fmt: skip
    columns = tl.arange(0, BLOCK)
    inside = columns < d_in
    through = tl.zeros([BLOCK], tl.float32)
    for place in range(tl.program_id(0), d_sae, tl.num_programs(0)):
        latent = tl.load(heavy_ptr + place)
        here = latent * d_in + columns
        direction = tl.load(dec_ptr + here, mask=inside, other=0.0)
        grad_enc = tl.zeros([BLOCK], tl.float32)
        grad_dec = tl.zeros([BLOCK], tl.float32)
        grad_bias = 0.0
        if EXTRA:
            extra_row = tl.load(extra_row_ptr + latent)
            there = extra_row * d_in + columns
            grad_enc += tl.load(extra_enc_ptr + there, mask=inside & (extra_row >= 0), other=0.0)
            grad_bias += tl.load(extra_bias_ptr + extra_row, mask=extra_row >= 0, other=0.0)
            if TRAIN_DEC:
                grad_dec += tl.load(extra_dec_ptr + there, mask=inside & (extra_row >= 0), other=0.0)
        end = tl.load(offsets_ptr + latent + 1)
        for start in range(tl.load(offsets_ptr + latent), end, TILE):
            at = start + tl.arange(0, TILE)
            rows = tl.load(rows_ptr + at, mask=at < end, other=0)
            tokens = (rows % n_tokens).to(tl.int64)
            needed = (at < end)[:, None] & inside[None, :]
            places = rows.to(tl.int64)[:, None] * d_in + columns[None, :]
            residuals = tl.load(residuals_ptr + places, mask=needed, other=0.0)
            places = tokens[:, None] * d_in + columns[None, :]
            inputs = tl.load(inputs_ptr + places, mask=needed, other=0.0).to(tl.float32)
            grad_pre = scale * tl.sum(residuals * direction[None, :], axis=1)
            grad_bias += tl.sum(grad_pre, axis=0)
            grad_enc += tl.sum(grad_pre[:, None] * inputs, axis=0)
            if TRAIN_DEC:
                values = scale * tl.load(values_ptr + at, mask=at < end, other=0.0)
                grad_dec += tl.sum(values[:, None] * residuals, axis=0)
        tl.store(grad_bias_ptr + latent, grad_bias)
        if FUSED:
            if TRAIN_DEC:  # first, so that less is held at a time
                grad_dec -= tl.sum(grad_dec * direction, axis=0) * direction
                mean = tl.load(dec_mean_ptr + here, mask=inside, other=0.0)
                square = tl.load(dec_square_ptr + here, mask=inside, other=0.0)
                mean = (1 - mean_rate) * mean + mean_rate * grad_dec
                square = (1 - square_rate) * square + square_rate * grad_dec * grad_dec
                direction -= step_size * mean / (tl.sqrt(square) / correction + eps)
                direction = direction / tl.sqrt(tl.sum(tl.where(inside, direction * direction, 0.0), axis=0))
                tl.store(dec_ptr + here, direction, mask=inside)
                tl.store(dec_mean_ptr + here, mean, mask=inside)
                tl.store(dec_square_ptr + here, square, mask=inside)
        elif TRAIN_DEC:
            tl.store(grad_dec_ptr + here, grad_dec, mask=inside)
        weight = tl.load(enc_ptr + here, mask=inside, other=0.0)
        through += grad_bias * weight
        if FUSED:
            mean = tl.load(enc_mean_ptr + here, mask=inside, other=0.0)
            square = tl.load(enc_square_ptr + here, mask=inside, other=0.0)
            mean = (1 - mean_rate) * mean + mean_rate * grad_enc
            square = (1 - square_rate) * square + square_rate * grad_enc * grad_enc
            weight -= step_size * mean / (tl.sqrt(square) / correction + eps)
            tl.store(enc_ptr + here, weight, mask=inside)
            tl.store(enc_mean_ptr + here, mean, mask=inside)
            tl.store(enc_square_ptr + here, square, mask=inside)
            if SHADOW:
                tl.store(shadow_ptr + here, weight.to(shadow_ptr.dtype.element_ty), mask=inside)
        else:
            tl.store(grad_enc_ptr + here, grad_enc, mask=inside)
    tl.store(through_ptr + tl.program_id(0).to(tl.int64) * d_in + columns, through, mask=inside)
