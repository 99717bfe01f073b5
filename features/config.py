"""Arguments of the features stage.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_wanted
from collect.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """What does each latent go along with? Sparse codes, associations on held-out videos, exemplars and pictures."""

    run: Path
    """Run folder with `activations/` and `sae/`; the result goes to its `features/SAE/`."""
    sae: str | None = None
    """Name of the SAE below the run's `sae/`, or any folder that SAELens loads; may be left out where the run has only
    one. Write @SITE behind it, such as lens@resid/12, where the SAE does not say what it reads."""
    data: Path | None = None
    """Folder of the annotations, in Perception Test's layout; the one that was collected from if not given."""
    min_videos: int = 30
    """Videos that must show a label in the train split, and again in the held-out split, for it to be tested."""
    exemplars: int = 8
    """Top activating tokens kept per latent."""
    exemplars_per_video: int = 1
    """Most of these that may come from one video."""
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

    def __post_init__(self) -> None:
        """Check what can be checked without reading a file.

        Raises:
            UserError: a number is out of its range.
        """
        require_wanted("--sae", self.sae)
        for name in ("min_videos", "exemplars", "exemplars_per_video", "permutations", "bootstraps", "batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _require(self.media >= 0, "media", self.media, "0 (draw nothing) or more")
        _require(self.controls >= 2, "controls", self.controls, "at least 2")
        _require(0 < self.fdr < 1, "fdr", self.fdr, "a fraction between 0 and 1, such as 0.05")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")


def _require(holds: bool, name: str, value: object, range_text: str) -> None:
    if not holds:
        raise UserError(f"--{name.replace('_', '-')} {value} is out of range: give {range_text}.")
