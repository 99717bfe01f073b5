"""One training step, by the fastest way for its architecture, its device and its processes.

`reference_step` is plain autograd, for all architectures. `sparse_step` is for the TopK family, everywhere. The kernels
take the same step on a GPU, for float32 weights, if each process has all of them.
"""

import functools
import importlib.util
import logging
from types import ModuleType

import torch
from jaxtyping import Float
from torch import Tensor

from train_sae.step.reference import reference_step
from train_sae.step.settings import StepSettings, StepStats
from train_sae.step.sparse import sparse_step
from train_sae.step.state import TrainState

__all__ = ["StepSettings", "StepStats", "reference_step", "sparse_step", "take_step", "takes_kernels"]

log = logging.getLogger(__name__)


def take_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take one step by the fastest way.

    Args:
        state: what the step changes.
        x: normalised activations, float32, on the state's device.
        settings: what the step does.
        lr: learning rate of this step.

    Returns:
        What happened, as scalars on the device: nothing here waits for it.
    """
    match settings.arch:
        case "topk" | "batchtopk" | "matryoshka_batchtopk" | "frozen_decoder":
            if takes_kernels(settings, x.device, state.weights.enc.dtype):
                return _kernels().kernel_step(state, x, settings, lr)
            return sparse_step(state, x, settings, lr)
        case "jumprelu" | "gated" | "standard" | "matching_pursuit":
            return reference_step(state, x, settings, lr)


def takes_kernels(settings: StepSettings, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a step of the TopK family is taken by the kernels, which cannot divide the latents.

    Args:
        settings: what the step does.
        device: where it is taken.
        dtype: of the weights.
    """
    return (
        device.type == "cuda"
        and settings.group.n_shards == 1
        and dtype == torch.float32
        and settings.precision in (torch.float32, torch.bfloat16)
        and _has_triton()
    )


@functools.cache
def _has_triton() -> bool:
    """Whether Triton is installed; logs once if it is not."""
    found = importlib.util.find_spec("triton") is not None
    if not found:
        log.warning(
            "Triton is not installed, so the training steps are taken by plain torch operations, which is slower on a "
            "GPU; install it with: pip install triton"
        )
    return found


@functools.cache
def _kernels() -> ModuleType:
    return importlib.import_module("train_sae.kernels.step")
