"""`torch.nn.functional.linear`, but with oneDNN on a CPU.

torch gives float32 products to MKL, which uses no AVX-512 on AMD's processors: there oneDNN takes half the time. In
bfloat16 torch writes the bias to the whole result before the product, whereas oneDNN adds it along the way. The
operation is the one that `torch.compile` puts in a linear layer's place; `torch.backends.mkldnn.enabled` switches it
off.
"""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear(
    x: Float[Tensor, "row d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "row d_out"]:
    """Take x · weightᵀ + bias.

    Args:
        x: rows.
        weight: one row for each column of the result, in memory in either order.
        bias: added to each row of the result.
    """
    is_empty = 0 in (*x.shape, *weight.shape)
    if x.device.type == "cpu" and torch.backends.mkldnn.enabled and x.dtype in _supported() and not is_empty:
        return _Linear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


@functools.cache
def _supported() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return (torch.float32, torch.bfloat16) if bfloat16 else (torch.float32,)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            linear(grad, weight.T) if for_x else None,
            linear(grad.T, x.T) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )
