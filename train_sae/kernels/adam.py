"""Adam with its gradient in any precision: one pass over a matrix and its moments, with the work after it.

The numbers that change from step to step are read on the device, so that a recorded step can be taken again with other
numbers. Rows of unit length are rescaled in the same pass, and a copy in another precision is written in it too.

Source: Kingma and Ba 2015, algorithm 1, with the corrections of section 2's end taken out of the loop.
"""
# pyright: basic
# Kernels are a language of their own, without annotations.

from typing import NamedTuple

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from train_sae.kernels.jit import kernel, power_of_two, warps_of

_VECTOR_BLOCK = 1024


class Rates(NamedTuple):
    """The numbers of Adam that do not change."""

    mean: float
    """1 − β₁"""
    square: float
    """1 − β₂"""
    eps: float


class AdamMoments(NamedTuple):
    """What Adam updates, with its moments."""

    weight: Float[Tensor, "*shape"]
    mean: Float[Tensor, "*shape"]
    square: Float[Tensor, "*shape"]


def adam_rows(
    moments: AdamMoments,
    grad: Float[Tensor, "row d_in"],
    numbers: Float[Tensor, "3"],
    rates: Rates,
    shadow: Float[Tensor, "row d_in"] | None = None,
    *,
    is_unit: bool = False,
) -> None:
    """Take Adam's step on the rows of a matrix.

    Args:
        moments: the matrix.
        grad: its gradient.
        numbers: lr / (1 − β₁ᵗ); sqrt(1 − β₂ᵗ); the divisor of all gradients.
        rates: the other numbers.
        shadow: receives a copy of the new rows in its precision.
        is_unit: whether to bring the rows back to unit length.
    """
    n_rows, width = grad.shape
    block = power_of_two(width)
    _launch((n_rows,), moments, grad, numbers, rates, shadow, width, n_rows * width, block, is_unit=is_unit)


def adam_vector(moments: AdamMoments, grad: Float[Tensor, " n"], numbers: Float[Tensor, "3"], rates: Rates) -> None:
    """Take Adam's step on a vector; arguments as for `adam_rows`."""
    programs = (triton.cdiv(len(grad), _VECTOR_BLOCK),)
    _launch(programs, moments, grad, numbers, rates, None, _VECTOR_BLOCK, len(grad), _VECTOR_BLOCK, is_unit=False)


def _launch(
    programs: tuple[int, ...],
    moments: AdamMoments,
    grad: Tensor,
    numbers: Tensor,
    rates: Rates,
    shadow: Tensor | None,
    width: int,
    n: int,
    block: int,
    *,
    is_unit: bool,
) -> None:
    _adam[programs](
        *moments, grad, grad if shadow is None else shadow, numbers, *rates, width, n,
        UNIT=is_unit, SHADOW=shadow is not None, BLOCK=block, num_warps=warps_of(block, 8),
    )  # fmt: skip


@kernel("UNIT", "SHADOW", "BLOCK")
def _adam(
    weight_ptr, mean_ptr, square_ptr, grad_ptr, shadow_ptr, numbers_ptr, mean_rate, square_rate, eps, width, n,
    UNIT, SHADOW, BLOCK,
):  # fmt: skip
    step_size = tl.load(numbers_ptr)
    correction = tl.load(numbers_ptr + 1)
    divisor = tl.load(numbers_ptr + 2)
    columns = tl.arange(0, BLOCK)
    here = tl.program_id(0).to(tl.int64) * width + columns
    inside = (columns < width) & (here < n)
    grad = tl.load(grad_ptr + here, mask=inside, other=0.0).to(tl.float32) / divisor
    mean = tl.load(mean_ptr + here, mask=inside, other=0.0)
    square = tl.load(square_ptr + here, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + here, mask=inside, other=0.0)
    mean = (1 - mean_rate) * mean + mean_rate * grad
    square = (1 - square_rate) * square + square_rate * grad * grad
    weight -= step_size * mean / (tl.sqrt(square) / correction + eps)
    if UNIT:
        weight = weight / tl.sqrt(tl.sum(tl.where(inside, weight * weight, 0.0), axis=0))
    tl.store(weight_ptr + here, weight, mask=inside)
    tl.store(mean_ptr + here, mean, mask=inside)
    tl.store(square_ptr + here, square, mask=inside)
    if SHADOW:
        tl.store(shadow_ptr + here, weight.to(shadow_ptr.dtype.element_ty), mask=inside)
