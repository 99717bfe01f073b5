"""Effects on the questions of one subject, set against other counting questions and against non-counting questions.

Pure functions of arrays: effects per item in, means over videos with intervals out, for many edits at once. Questions
about one video are averaged first; all intervals of a row come from the same draws of videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from ask.inference import EXACT_SIGN_FLIPS
from ask.questions import Item
from features.association.inference import quantiles_of_rows
from steer.targets import ENOUGH_VIDEOS

BOOTSTRAPS = 1000
SIGN_FLIPS = 10_000
INTERVAL = (0.025, 0.975)

Real = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Counting questions that are taken together."""

    scope: str
    """`subject`: all questions that count alike; `task`: all with one text."""
    name: str
    matched: Bool[np.ndarray, " item"]
    other: Bool[np.ndarray, " item"]
    """The other counting questions."""
    noncounting: Bool[np.ndarray, " item"]


def groups_of(items: Sequence[Item], scopes: Sequence[str] = ("subject", "task")) -> list[Group]:
    """The groups of some items, by scope and name."""
    counting = np.array([item.counting for item in items], dtype=bool)
    names = {
        "subject": np.array([item.subject or "" for item in items], dtype=object),
        "task": np.array([item.question for item in items], dtype=object),
    }
    return [
        Group(scope=scope, name=str(name), matched=own, other=counting & ~own, noncounting=~counting)
        for scope in scopes
        for name in sorted(set(names[scope][counting]))
        for own in [counting & (names[scope] == name)]
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMeans:
    """Means per video over the items of a set; videos without such an item are marked."""

    values: Float[np.ndarray, "video edit"]
    has: Bool[np.ndarray, " video"]

    @property
    def own(self) -> Float[np.ndarray, "own edit"]:
        """Those of the videos that have such an item."""
        return self.values[self.has]

    def mean(self) -> Float[np.ndarray, " edit"]:
        """Mean over videos; NaN where none has such an item."""
        return self.own.mean(axis=0) if self.has.any() else np.full(self.values.shape[1], np.nan)


class Contrasts:
    """Averages over the videos of one split, with one set of bootstrap draws for all of them."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        """Draw the videos.

        Args:
            items: of one split, in the order of the rows of all that is averaged.
            seed: of the bootstrap and of the sign flips.
        """
        self.items = tuple(items)
        self.videos, self._video = np.unique(
            np.array([item.video_id for item in items], dtype=str), return_inverse=True
        )
        self._rng = np.random.default_rng(seed)
        n = max(1, len(self.videos))
        drawn = self._rng.integers(0, n, size=(BOOTSTRAPS, n))
        self._weights = np.stack([np.bincount(row, minlength=n) for row in drawn]).astype(np.float64)
        self._seed = seed

    def means(self, values: Float[np.ndarray, "item edit"], chosen: Bool[np.ndarray, " item"]) -> VideoMeans:
        """Average the chosen items of each video."""
        count = np.bincount(self._video[chosen], minlength=len(self.videos))
        total = np.zeros((len(self.videos), values.shape[1]))
        np.add.at(total, self._video[chosen], values[chosen])
        return VideoMeans(values=total / np.maximum(count, 1)[:, None], has=count > 0)

    def draws(self, means: VideoMeans) -> Float[np.ndarray, "draw edit"]:
        """Bootstrap draws of the mean; NaN where a draw has none of the videos.

        All are NaN where fewer than two videos have items: one does not say how videos differ.
        """
        if means.has.sum() < 2:
            return np.full((BOOTSTRAPS, means.values.shape[1]), np.nan)
        weights = self._weights[:, : len(means.has)] * means.has
        total = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(total > 0, weights @ means.values / total, np.nan)

    def sign_flip_p(self, means: VideoMeans) -> Float[np.ndarray, " edit"]:
        """Two-sided sign-flip test of each edit's mean over videos, as in `ask.inference.sign_flip_p`."""
        own = means.own
        n = len(own)
        if n == 0:
            return np.full(means.values.shape[1], np.nan)
        threshold = np.abs(own.sum(axis=0)) - 1e-9 * np.abs(own).sum(axis=0)
        if n <= EXACT_SIGN_FLIPS:
            signs = 1.0 - 2.0 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
            return (np.abs(signs @ own) >= threshold).mean(axis=0)
        signs = np.random.default_rng(self._seed).integers(0, 2, size=(SIGN_FLIPS, n)) * 2.0 - 1.0
        return (1 + (np.abs(signs @ own) >= threshold).sum(axis=0)) / (SIGN_FLIPS + 1)

    def columns(
        self,
        group: Group,
        margin: Float[np.ndarray, "item edit"],
        count: Float[np.ndarray, "item edit"],
    ) -> dict[str, Float[np.ndarray, " edit"]]:
        """The contrast of one group, a number per edit and column.

        Args:
            group: the matched questions, and those that they are set against.
            margin: change of the margin by each edit; 0 where it does nothing.
            count: change of the expected count; anything for non-counting questions.
        """
        sets = {
            "delta_margin": self.means(margin, group.matched),
            "delta_expected_count": self.means(np.where(group.matched[:, None], count, 0.0), group.matched),
            "delta_margin_other": self.means(margin, group.other),
            "delta_margin_noncounting": self.means(margin, group.noncounting),
        }
        draws = {name: self.draws(means) for name, means in sets.items()}
        found: dict[str, Real] = {}
        for name, means in sets.items():
            found[name] = means.mean()
            found[f"{name}_low"], found[f"{name}_high"] = interval(draws[name])
        matched = sets["delta_margin"]
        found["contrast"] = found["delta_margin"] - found["delta_margin_other"]
        found["contrast_low"], found["contrast_high"] = interval(draws["delta_margin"] - draws["delta_margin_other"])
        found["p_value"] = self.sign_flip_p(matched)
        found["detectable"] = detectable(matched)
        return found


def interval(draws: Float[np.ndarray, "draw edit"]) -> tuple[Float[np.ndarray, " edit"], Float[np.ndarray, " edit"]]:
    """95 % percentile interval of each edit; NaN where all draws are."""
    low, high = quantiles_of_rows(draws.T, INTERVAL)
    return low, high


def detectable(means: VideoMeans) -> Float[np.ndarray, " edit"]:
    """Smallest mean over videos that the sign-flip test at 5 %, taken alone, finds with 80 % power.

    The videos with an effect are taken to be these, each with the same further effect and normal deviations from it; a
    zero stays one, since flipping its sign changes nothing. NaN where fewer than six videos have an effect, which the
    test cannot find; 0 where all effects are zero, as nothing deviates.
    """
    own = means.own
    moving = own != 0
    n = moving.sum(axis=0)
    mean = own.sum(axis=0) / np.maximum(n, 1)
    spread = np.sqrt((np.where(moving, own - mean, 0.0) ** 2).sum(axis=0) / np.maximum(n - 1, 1))
    factors = np.array([power_factor(int(count)) for count in n])
    share = n / max(1, len(own))
    found = share * factors * spread / np.sqrt(np.maximum(n, 1))
    return np.where((n == 0) & (len(own) >= ENOUGH_VIDEOS), 0.0, found)


def power_factor(n_videos: int) -> float:
    """Standard errors by which a mean has to lie from zero so that a sign-flip test finds it with 80 % power at 5 %.

    The two-sided normal test has 2.8. Six videos have to agree in their signs, seven nearly so (3.5 by simulation);
    from eight on the curve is within 0.05 of simulation. NaN below `ENOUGH_VIDEOS`.

    Args:
        n_videos: videos with an effect.
    """
    if n_videos < ENOUGH_VIDEOS:
        return float("nan")
    return {6: 4.39, 7: 3.53}.get(n_videos, 2.8 + 3.1 / (n_videos - 2.4))
