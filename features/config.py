"""Arguments of the features stage.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collect.arguments import require_seed, require_wanted
from collect.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Floors:
    """What a label has to reach on held-out videos to be a latent's name: NAME=VALUE behind `--options`."""

    min_auroc: float = 0.7
    """AUROC of the label."""
    min_within: float = 0.55
    """Lower end of the interval of its within-video AUROC."""
    min_share: float = 0.5
    """Share of the videos with the label in which the latent tells it."""
    min_explained: float = 0.15
    """Share of the variance of the latent's activation that the label explains."""
    min_units: int = 8
    """Positive tokens or frames."""
    margin: float = 0.1
    """Share by which another label's correlation has to exceed the name's to be a better explanation."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: a value is out of its range.
        """
        for name in ("min_auroc", "min_within", "min_share", "min_explained", "margin"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise UserError(f"--options {name}={value:g} is out of range: give 0 or more, and less than 1.")
        if self.min_units < 1:
            raise UserError(f"--options min_units={self.min_units} is out of range: give at least 1.")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """What does each latent go along with? Sparse codes, associations on held-out videos, exemplars and pictures."""

    run: Path
    """Run folder with `activations/` and `sae/`; the result goes to its `features/SAE/`."""
    sae: str | None = None
    """Name of the SAE below the run's `sae/`, or any folder that SAELens loads; may be left out where the run has only
    one. Write @SITE behind it, such as lens@resid/12, where the SAE does not say what it reads."""
    baseline: str | None = None
    """Another SAE of the run, by name or folder, that every name has to beat and the summary compares with: one of the
    same size with a frozen random decoder, as `train --arch frozen_decoder` makes."""
    data: Path | None = None
    """Folder of the annotations, in Perception Test's layout; the one that was collected from if not given."""
    min_videos: int = 30
    """Videos that must show a label in the train split, and again in the held-out split, for it to be tested."""
    exemplars: int = 8
    """Top activating tokens kept per latent."""
    media: int = 24
    """Latents whose exemplars are drawn: the labelled ones first, by held-out AUROC."""
    permutations: int = 1000
    """Permutations of annotations between whole videos behind each p-value; the smallest is 1 / (permutations + 1)."""
    bootstraps: int = 1000
    """Resamples of the held-out videos behind each 95 % interval."""
    controls: int = 128
    """Control directions, half raw residual dimensions and half random projections, each at several firing rates."""
    fdr: float = 0.05
    """False discovery rate at which a latent may get a label (Benjamini-Hochberg)."""
    seed: int = 0
    """Seed of permutations, resamples and random projections."""
    device: str = "auto"
    """Where to encode: `auto`, `cpu`, `cuda`, `cuda:1`..."""
    batch_size: int = 8192
    """Tokens encoded at once."""
    options: tuple[str, ...] = ()
    """Settings that seldom need another value, as NAME=VALUE: what a label has to reach to be a name (min_auroc,
    min_within, min_share, min_explained, min_units, margin), exemplars_per_video, combinations (2 or 3: seek labels
    joined by AND, OR and NOT, at most that many), and brightness (1: decode the videos again, so that bright and dark
    frames are labels too)."""

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            UserError: a number is out of its range.
        """
        require_wanted("--sae", self.sae)
        require_wanted("--baseline", self.baseline)
        for name in ("min_videos", "exemplars", "permutations", "bootstraps", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.media >= 0, "media", self.media, "0 (draw nothing) or more")
        _require(self.controls >= 2, "controls", self.controls, "at least 2")
        _require(0 < self.fdr < 1, "fdr", self.fdr, "a fraction between 0 and 1, such as 0.05")
        require_seed(self.seed)
        if self.exemplars_per_video < 1:
            raise UserError(
                f"--options {EXEMPLARS_PER_VIDEO}={self.exemplars_per_video} is out of range: give 1 or more."
            )
        if self.combinations not in DEPTHS:
            raise UserError(
                f"--options {COMBINATIONS}={self.combinations} is out of range: give 2 or 3, the most labels in a "
                "combination, or 0 for none."
            )
        if self._options().get(BRIGHTNESS, 0) not in (0, 1):
            raise UserError(f"--options {BRIGHTNESS} is 1 or 0: decode the videos for labels of light, or do not.")
        assert self.floors  # made to check its values

    @property
    def floors(self) -> Floors:
        """What a label has to reach to be a name."""
        values: dict[str, Any] = {name: value for name, value in self._options().items() if name in _FLOORS}
        return Floors(**values)

    @property
    def exemplars_per_video(self) -> int:
        """Most exemplars of a latent that may come from one video."""
        return int(self._options().get(EXEMPLARS_PER_VIDEO, 1))

    @property
    def combinations(self) -> int:
        """Most labels in a combination; 0 where none are sought."""
        return int(self._options().get(COMBINATIONS, 0))

    @property
    def brightness(self) -> bool:
        """Whether bright and dark frames are labels too."""
        return bool(self._options().get(BRIGHTNESS, 0))

    def _options(self) -> dict[str, float | int]:
        values: dict[str, float | int] = {}
        for pair in self.options:
            name, _, text = pair.partition("=")
            if name not in (*_FLOORS, *_WHOLE):
                known = ", ".join([*_FLOORS, *_WHOLE])
                raise UserError(f"--options {pair!r} is not known: give NAME=VALUE with one of {known}.")
            whole = name in ("min_units", *_WHOLE)
            try:
                values[name] = int(text) if whole else float(text)
            except ValueError:
                kind = "a whole number" if whole else "a number"
                raise UserError(f"--options {pair!r}: the value has to be {kind}.") from None
        return values


_FLOORS = tuple(field.name for field in dataclasses.fields(Floors))
EXEMPLARS_PER_VIDEO, COMBINATIONS, BRIGHTNESS = "exemplars_per_video", "combinations", "brightness"
_WHOLE = (EXEMPLARS_PER_VIDEO, COMBINATIONS, BRIGHTNESS)
DEPTHS = (0, 2, 3)


def _require(holds: bool, name: str, value: object, range_text: str) -> None:
    if not holds:
        raise UserError(f"--{name.replace('_', '-')} {value} is out of range: give {range_text}.")
