"""One training step: the sparse one where the architecture has one, else the reference."""

from jaxtyping import Float
from torch import Tensor

from train_sae.reference import reference_step
from train_sae.settings import StepSettings, StepStats
from train_sae.sparse import sparse_step
from train_sae.state import TrainState

__all__ = ["StepSettings", "StepStats", "reference_step", "sparse_step", "take_step"]


def take_step(state: TrainState, x: Float[Tensor, "token d_in"], settings: StepSettings, lr: float) -> StepStats:
    """Take one step by the fastest way that the architecture has.

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
            return sparse_step(state, x, settings, lr)
        case "jumprelu" | "gated" | "standard" | "matching_pursuit":
            return reference_step(state, x, settings, lr)
