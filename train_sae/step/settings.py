"""What a training step does, apart from its data, and what happened in it."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.processes.group import SOLO, Group


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """What a step does, apart from its data."""

    arch: Architecture
    k: int
    dead_tokens: int
    aux_k: int
    """Dead latents that reconstruct the error of one token."""
    precision: torch.dtype = torch.float32
    """Precision of the encoder's matrix product."""
    threshold_rate: float = 0.01
    """Weight of the newest batch in the running mean of the smallest selected activation."""
    seed: int = 0
    """Seed of what a step draws: sampled Matryoshka widths."""
    options: SaeOptions = field(default_factory=SaeOptions)
    """Settings of the architecture."""
    group: Group = SOLO
    """The processes that take the step together."""

    def widths(self, d_sae: int, step: int) -> tuple[int, ...]:
        """Widths of the Matryoshka prefixes at a step, in ascending order; the last is the whole dictionary.

        Sampled ones follow a truncated Pareto distribution of exponent ½, which favours short prefixes, and depend only
        on seed and step.

        Source: Bussmann et al. 2025 ("Learning multi-level features with Matryoshka SAEs"), section 3.
        """
        if self.arch != "matryoshka_batchtopk":
            return (d_sae,)
        if not self.options.matryoshka_samples:
            return self.options.widths(d_sae)
        draws = np.random.default_rng((self.seed, step)).random(self.options.matryoshka_samples)
        # Inverse of the distribution function of a density ∝ w^(−3/2) on [1, d_sae].
        sampled = (1 - draws * (1 - d_sae**-0.5)) ** -2.0
        return tuple(sorted({*(int(width) for width in sampled), d_sae}))


class StepStats(NamedTuple):
    """What happened in a step; scalars stay on the device, so that the caller decides when to read them."""

    mse: Float[Tensor, ""]
    """Mean over tokens of the squared error, summed over channels; of the whole dictionary in Matryoshka."""
    variance: Float[Tensor, ""]
    """Mean over tokens of the squared distance from the batch's mean."""
    aux: Float[Tensor, ""]
    """The auxiliary term (AuxK; reconstruction from the gates of a gated SAE), without its coefficient."""
    l0: Float[Tensor, ""]
    """Mean number of non-zero latents per token."""
    n_dead: Float[Tensor, ""]
    """Number of dead latents before the step."""
    threshold: Float[Tensor, ""]
    """Running mean of the smallest selected activation."""
    sparsity: Float[Tensor, ""]
    """The sparsity penalty of jumprelu, gated and standard, times its coefficient; zero for others."""
