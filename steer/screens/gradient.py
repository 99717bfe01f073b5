"""Screening: a first-order estimate of every latent's effect from one forward and two backward passes per video.

To first order, ablating latent j changes the margin by -sum over t of f_tj W_dec[j] . G_t, where G_t is the gradient of
the margin with respect to the residual of visual token t at the site. Only non-zero f_tj count, so all latents together
cost one gather. The estimate ranks latents for exact runs and is never reported as an effect itself.

Source: attribution patching, as in Nanda (2023) and Marks et al. (2024, section 3.2), with the error term kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ask.answers import margins
from ask.cases import Case
from ask.packing import Asked, letter_logits
from ask.questions import N_OPTIONS
from steer.codes import VideoCodes

GATHER_ROWS = 65_536
"""Non-zeros gathered at once; bounds the memory at this many rows of d_in."""


def margin_gradients(
    model: Asked, case: Case, groups: Sequence[Sequence[int]]
) -> list[Float[Tensor, "visual d_model"] | None]:
    """Gradients of mean margins with respect to the visual residuals at the site: one forward, one backward a group.

    Args:
        model: the model, at the site where the case's residuals were read.
        case: the video and its questions.
        groups: places of the items over which each margin is averaged; an empty group gives None.
    """
    seq = case.sequences
    change = torch.zeros_like(seq.visual, requires_grad=True)
    with torch.enable_grad():
        hidden = seq.hidden.index_add(1, seq.visual_positions, change.expand(len(seq.hidden), -1, -1))
        logits, _ = letter_logits(model, seq, hidden)
        per_item = margins(logits[0].unflatten(0, (-1, N_OPTIONS)), case.correct).mean(dim=1)
        filled = [group for group in groups if group]
        gradients = [
            torch.autograd.grad(per_item[list(group)].mean(), change, retain_graph=place < len(filled) - 1)[0]
            for place, group in enumerate(filled)
        ]
    found = iter(gradients)
    return [next(found).float() if group else None for group in groups]


class Attribution(NamedTuple):
    """What the gradient says of the ablation of every latent."""

    estimate: Float[Tensor, " d_sae"]
    """Change of the margin: -sum over t of f_tj W_dec[j] . G_t."""
    reach: Float[Tensor, " d_sae"]
    """The same with the absolute value of every token's part."""


def attribution(
    codes: VideoCodes, decoder: Float[Tensor, "d_sae d_in"], gradient: Float[Tensor, "visual d_in"]
) -> Attribution:
    """Estimate the change of the margin by the ablation of every latent."""
    both = torch.zeros(2, len(decoder), dtype=torch.float64, device=decoder.device)
    for start in range(0, len(codes.value), GATHER_ROWS):
        part = slice(start, start + GATHER_ROWS)
        slopes = (decoder[codes.latent[part]] * gradient[codes.token[part]]).sum(dim=1)
        parts = -(codes.value[part] * slopes).double()
        both.index_add_(1, codes.latent[part], torch.stack([parts, parts.abs()]))
    return Attribution(*both.float())


@dataclass
class RunningMoments:
    """Mean and standard error over videos of one number per latent, accumulated video by video."""

    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: int = 0

    @classmethod
    def zeros(cls, d_sae: int) -> RunningMoments:
        """Start with no video."""
        return cls(total=np.zeros(d_sae), squares=np.zeros(d_sae))

    def add(self, values: Float[Tensor, " d_sae"]) -> None:
        """Take in one video."""
        array = values.cpu().numpy().astype(np.float64)
        self.total += array
        self.squares += array**2
        self.n += 1

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean over videos; NaN before the first."""
        return self.total / self.n if self.n else np.full_like(self.total, np.nan)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error of the mean; NaN with fewer than two videos."""
        if self.n < 2:
            return np.full_like(self.total, np.nan)
        variance = np.maximum(self.squares - self.total**2 / self.n, 0.0) / (self.n - 1)
        return np.sqrt(variance / self.n)


def standardise(
    mean: NDArray[np.float64], standard_error: NDArray[np.float64], active: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return mean / (standard error + s0), where s0 is the median standard error of the active latents.

    The constant keeps latents that hardly do anything, but do it evenly, from leading the ranking.

    Source: Tusher, Tibshirani and Chu (2001), the statistic d(i) of SAM.
    """
    known = standard_error[active & ~np.isnan(standard_error)]
    floor = float(np.median(known)) if len(known) else 0.0
    scale = np.nan_to_num(standard_error, nan=0.0) + floor
    return np.divide(mean, scale, out=np.zeros_like(mean), where=scale > 0)
