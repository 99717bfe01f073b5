"""One subject's videos, and what edits change in the answers to its questions.

All analyses of mechanisms work on the matched questions of one subject: edits come in, and the mean change per video
goes out. Means over videos come with bootstrap intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from ask.answers import changes
from ask.cases import Case
from ask.inference import bootstrap_interval
from ask.questions import Item
from steer.codes import CodedCases, Scene, VideoCodes
from steer.effects import Editor
from steer.evidence.contrasts import BOOTSTRAPS

Real = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shifts:
    """What each edit changes in one video, mean over the matched questions and the orders of their options."""

    margin: Float[np.ndarray, " edit"]
    count: Float[np.ndarray, " edit"]
    """Change of the expected count."""
    answer: Float[np.ndarray, " edit"]
    """Change of the count that is answered, the letter with the highest logit."""
    by_one: Float[np.ndarray, " edit"]
    """Share of the answers that change by exactly one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """The model with its latents, and the questions of one split."""

    editor: Editor
    cases: CodedCases
    items: tuple[Item, ...]
    """Items of the split."""
    seed: int

    def asked(self, subject: str) -> dict[str, list[Item]]:
        """The items of a subject by video, in order."""
        found: dict[str, list[Item]] = {}
        for item in self.items:
            if item.subject == subject:
                found.setdefault(item.video_id, []).append(item)
        return found

    def matched(self, video_id: str, subject: str) -> tuple[Case, VideoCodes, Scene]:
        """A video with the questions of a subject alone."""
        case, codes = self.cases[video_id]
        return case.about(subject), codes, self.cases.scene(video_id)

    def shifts(
        self,
        case: Case,
        edits: Iterable[Float[Tensor, "place d_model"]],
        tokens: Bool[Tensor, "row token"] | None = None,
    ) -> Shifts:
        """Answer a video's questions once per edit."""
        logits, mass = self.editor.answers(case, tokens, edits)
        return shifts_of(case, logits, mass)


def shifts_of(
    case: Case, logits: Float[Tensor, "edit item order letter"], mass: Float[Tensor, "edit item order"]
) -> Shifts:
    """Compare answers with those of the unedited model."""
    found = changes(case.logits, case.mass, logits, mass, case.correct, case.values)
    before = case.values.gather(-1, case.logits.argmax(dim=-1, keepdim=True))[..., 0]
    values = case.values.expand(logits.shape)
    after = values.gather(-1, logits.argmax(dim=-1, keepdim=True))[..., 0]
    moved = (after - before).double()
    return Shifts(
        margin=_mean(found.delta_margin),
        count=_mean(found.delta_expected_count),
        answer=_mean(moved.mean(dim=-1)),
        by_one=_mean((moved.abs() == 1).double().mean(dim=-1)),
    )


def _mean(values: Float[Tensor, "edit item"]) -> Real:
    return values.double().mean(dim=-1).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over videos with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on one side of zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def columns(self, name: str) -> dict[str, float]:
        """Three columns of a table."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}


def estimate(values: Sequence[float] | Real, seed: int) -> Estimate:
    """Mean over videos; one number per video, those that are not known left out. One video alone has no interval.

    Equal seeds draw equal videos, so estimates over the same videos can be compared.
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[~np.isnan(array)]
    low, high = bootstrap_interval(array, np.random.default_rng(seed))
    return Estimate(mean=float(array.mean()) if len(array) else float("nan"), low=low, high=high, n=len(array))


def video_draws(n_videos: int, seed: int) -> NDArray[np.int64]:
    """[draw, video] bootstrap samples of videos by their numbers, for the interval of anything but a mean."""
    return np.random.default_rng(seed).integers(0, n_videos, size=(BOOTSTRAPS, n_videos))


def change_of(
    codes: VideoCodes,
    latents: Sequence[int],
    after: Float[Tensor, "token latent"],
    decoder: Float[Tensor, "d_sae d_in"],
) -> Float[Tensor, "token d_in"]:
    """What to add to the residuals so that some latents have other activations; the SAE's error stays."""
    return (after - codes.columns(latents)) @ decoder[list(latents)].float()


def written(codes: VideoCodes, decoder: Float[Tensor, "d_sae d_in"]) -> Float[Tensor, "token d_in"]:
    """What all latents together write at each token."""
    out = torch.zeros(codes.n_tokens, decoder.shape[1], device=decoder.device)
    for start in range(0, len(codes.value), 65_536):
        part = slice(start, start + 65_536)
        out.index_add_(0, codes.token[part], codes.value[part, None] * decoder[codes.latent[part]].float())
    return out
