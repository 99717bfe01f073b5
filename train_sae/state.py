"""What a training step changes, and its passage to and from the tensors of a checkpoint.

Nothing random is in the state: the initial weights and the order of the tokens are functions of the seed and the step.
So weights, Adam's moments, counters and the step are all that a resumed run needs to go on exactly.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from train_sae.architectures import Weights

ADAM_BETAS = (0.9, 0.999)
ADAM_EPS = 6.25e-10
"""Small against the gradients of latents that fire rarely. Source: Gao et al. 2024, appendix A.3."""


class TrainState:
    """Weights, optimiser, counters.

    Args:
        weights: initial weights, which the state takes over and changes in place.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        for tensor in weights.tensors().values():
            tensor.requires_grad_()
        self.optimizer = torch.optim.Adam(list(weights.tensors().values()), betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)
        self.step = 0
        device = weights.b_enc.device
        self.tokens_since_fired = torch.zeros(weights.b_enc.shape[0], dtype=torch.int64, device=device)
        self.threshold = torch.zeros((), dtype=torch.float64, device=device)
        """Running mean of the smallest selected activation; float64, since its updates are small."""

    def dead(self, dead_tokens: int) -> Bool[Tensor, " d_sae"]:
        """Latents that have not fired for so many tokens."""
        return self.tokens_since_fired >= dead_tokens

    def count(
        self, fired: Bool[Tensor, " d_sae"], n_tokens: int, positive: Float[Tensor, " nnz"], threshold_rate: float
    ) -> None:
        """Update the counters after a step.

        Args:
            fired: latents active at one of its tokens.
            n_tokens: tokens in the batch.
            positive: the positive latent activations of the batch.
            threshold_rate: weight of the batch in the running mean of the smallest of them.
        """
        self.tokens_since_fired.add_(n_tokens).masked_fill_(fired, 0)
        if positive.numel():
            rate = torch.where(self.threshold > 0, threshold_rate, 1.0)
            self.threshold.lerp_(positive.min().to(self.threshold), rate.to(self.threshold))
        self.step += 1

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.weights.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name; the step is not among them."""
        tensors = {"tokens_since_fired": self.tokens_since_fired, "threshold": self.threshold}
        for name, weight in self.weights.tensors().items():
            tensors[name] = weight.detach()
            tensors |= {f"adam.{name}.{key}": value for key, value in self.optimizer.state[weight].items()}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], step: int) -> "TrainState":
        """Rebuild the state after so many steps from what `tensors` gave.

        Raises:
            KeyError: a tensor is missing.
        """
        state = cls(Weights(**{name: tensors[name].clone() for name in ("enc", "dec", "b_enc", "b_dec")}))
        for name, weight in state.weights.tensors().items():
            keys = ("step", "exp_avg", "exp_avg_sq")
            state.optimizer.state[weight] = {key: tensors[f"adam.{name}.{key}"].clone() for key in keys}
        state.tokens_since_fired = tensors["tokens_since_fired"].clone()
        state.threshold = tensors["threshold"].clone()
        state.step = step
        return state
