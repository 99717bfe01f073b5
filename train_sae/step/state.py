"""What a training step changes, and its conversion to and from the tensors of a checkpoint.

Nothing random is in the state: the initial weights and the order of the tokens are functions of the seed and the step.
So weights, Adam's moments, counters and the step are all that a resumed run needs to continue exactly.
"""

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.step.architectures import Weights, initial_weights, trained_names

ADAM_EPS = 6.25e-10
"""Small against the gradients of latents that fire rarely. Source: Gao et al. 2024, appendix A.3."""


class TrainState:
    """Weights, optimiser, counters.

    Args:
        weights: initial weights, which the state takes over and changes in place.
        trained: names of the weights that are trained; all if not given.
        averaged: whether to keep an exponential moving average of the trained weights.
    """

    def __init__(self, weights: Weights, trained: Collection[str] | None = None, averaged: bool = False) -> None:
        self.weights = weights
        self.trained = {name: w for name, w in weights.tensors().items() if trained is None or name in trained}
        for tensor in self.trained.values():
            tensor.requires_grad_()
        self.optimizer = torch.optim.Adam(list(self.trained.values()), eps=ADAM_EPS, fused=True)
        self.average = {name: w.detach().clone() for name, w in self.trained.items()} if averaged else None
        """Moving average of the trained weights, by name."""
        self.step = 0
        self.memory: object = None
        """What a step keeps for the next one to save time. It follows from the rest, so it is not in checkpoints."""
        device = weights.b_enc.device
        self.tokens_since_fired = torch.zeros(weights.b_enc.shape[0], dtype=torch.int64, device=device)
        self.threshold = torch.zeros((), dtype=torch.float64, device=device)
        """Running mean of the smallest selected activation; float64, since its updates are small."""

    def set_adam(self, lr: float, options: SaeOptions, divisor: Float[Tensor, ""] | None = None) -> None:
        """Set the numbers of Adam's next step; it also divides all gradients by `divisor`, if given."""
        group = self.optimizer.param_groups[0]
        group["lr"], group["betas"] = lr, (options.adam_beta1, options.adam_beta2)
        cast("Any", self.optimizer).grad_scale = None if divisor is None else divisor.float()

    def dead(self, dead_tokens: int) -> Bool[Tensor, " d_sae"]:
        """Latents that have not fired for this many tokens."""
        return self.tokens_since_fired >= dead_tokens

    def count(
        self, fired: Bool[Tensor, " d_sae"], n_tokens: int, smallest: Float[Tensor, ""], threshold_rate: float
    ) -> None:
        """Update the counters after a step.

        Args:
            fired: latents active at one of its tokens.
            n_tokens: tokens in the batch.
            smallest: the smallest positive latent activation of the batch; infinite if there is none.
            threshold_rate: weight of the batch in the running mean of the smallest activation.
        """
        self.tokens_since_fired.add_(n_tokens).masked_fill_(fired, 0)
        rate = torch.where(self.threshold > 0, threshold_rate, 1.0).to(self.threshold)
        moved = self.threshold.lerp(smallest.to(self.threshold), rate)
        self.threshold.copy_(torch.where(smallest.isfinite(), moved, self.threshold))
        self.step += 1

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.weights.tensors().values())

    @property
    def exported(self) -> Weights:
        """The weights to evaluate and export: their moving average, if one is kept, with unit decoder norm."""
        if self.average is None:
            return self.weights
        tensors = {**self.weights.tensors(), **self.average}
        dec = tensors["dec"].detach()
        return Weights.from_tensors({**tensors, "dec": dec / dec.norm(dim=1, keepdim=True)})

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name; the step is not among them."""
        tensors = {"tokens_since_fired": self.tokens_since_fired, "threshold_mean": self.threshold}
        for name, weight in self.weights.tensors().items():
            tensors[name] = weight.detach()
        for name, weight in self.trained.items():
            tensors |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[weight].items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], step: int) -> "TrainState":
        """Rebuild the state after this many steps from what `tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        trained = [name.split(".")[1] for name in tensors if name.startswith("adam.") and name.endswith(".exp_avg")]
        weights = Weights.from_tensors({name: tensor.clone() for name, tensor in tensors.items() if "." not in name})
        state = cls(weights, trained, any(name.startswith("average.") for name in tensors))
        for name, weight in state.trained.items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            state.optimizer.state[weight] = {key: tensors[f"adam.{name}.{key}"].clone() for key in keys}
            if state.average is not None:
                state.average[name] = tensors[f"average.{name}"].clone()
        state.tokens_since_fired = tensors["tokens_since_fired"].clone()
        state.threshold = tensors["threshold_mean"].clone()
        state.step = step
        return state


def initial_state(
    b_dec: Float[Tensor, " d_in"], d_sae: int, seed: int, arch: Architecture, options: SaeOptions | None = None
) -> TrainState:
    """The state at the beginning of a training.

    Args:
        b_dec: the mean of the normalised input, on the device to train on.
        d_sae: number of latents.
        seed: seed of the initial weights.
        arch: architecture.
        options: settings of the architecture and the step.
    """
    options = options or SaeOptions()
    weights = initial_weights(b_dec, d_sae, seed, arch, options)
    return TrainState(weights, trained_names(arch, weights), options.ema_decay is not None)
