"""Which screen costs least: a model of the arithmetic of a pass, from tokens, layers and weights.

A token that a layer runs costs two operations per weight of the layer, and four per dimension and token that it attends
to. The last layer runs at the answers alone. A whole edit runs every token; a direct one the tokens of the questions,
for the latents that lead in a video; masks run a fixed number of whole edits, however many latents there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from ask.cases import Case
from ask.packing import Asked
from steer.screens.estimates import n_leaders
from steer.screens.masked import N_MASKS


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the cost of an edited pass over one video depends on."""

    n_prefix: int
    n_text: int
    n_answers: int
    n_layers: int
    """Layers after the site."""
    n_weights: int
    """Of one layer."""
    d_model: int

    @classmethod
    def of(cls, model: Asked, case: Case) -> Shape:
        """The shape of a case, as if its questions were packed behind one prefix."""
        seq = case.sequences
        n_prefix = int(seq.visual_positions[-1]) + 1
        layers = cast("nn.ModuleList", model.vlm.decoder.layers)
        return cls(
            n_prefix=n_prefix,
            n_text=int((seq.question >= 0).sum()),
            n_answers=len(seq.last),
            n_layers=model.vlm.n_layers - model.vlm.resumable(model.site).layers_before,
            n_weights=sum(each.numel() for each in layers[-1].parameters()),
            d_model=model.vlm.d_model,
        )

    def run(self, n_tokens: int, n_seen: int | float) -> float:
        """Operations of one layer at some tokens that each attend to so many."""
        return float(n_tokens) * (2 * self.n_weights + 4 * self.d_model * n_seen)

    @property
    def direct(self) -> float:
        """Operations of one edit that the tokens of the questions alone see."""
        n = self.n_prefix + self.n_text
        return (self.n_layers - 1) * self.run(self.n_text, n) + self.run(self.n_answers, n)

    @property
    def whole(self) -> float:
        """Operations of one edit."""
        return (self.n_layers - 1) * self.run(self.n_prefix, self.n_prefix / 2) + self.direct


def cheapest(shape: Shape, n_active: int, *, has_direct: bool) -> str | None:
    """The screen that judges all active latents of a video at the least cost; None if exact runs cost no more.

    Args:
        shape: of the video.
        n_active: latents that fire in it.
        has_direct: whether the model has direct effects.
    """
    costs = {"masked": N_MASKS * shape.whole}
    if has_direct:
        costs["direct"] = n_leaders(n_active) * shape.direct
    best = min(costs, key=lambda name: costs[name])
    return best if costs[best] < n_active * shape.whole else None
