"""Arguments of `video-sae demo`; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_path
from collect.errors import UserError
from train_sae.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole path on the embedded world and model: videos, profile, activations, SAE, features, effects, report."""

    out: Path = Path("runs/demo")
    """Run folder; the videos go to its `data/`."""
    videos: int = 150
    """Videos to make; a third of them is held out."""
    d_sae: int = 1024
    """Number of latents."""
    k: int = 16
    """Active latents per token."""
    epochs: float = 25.0
    """Passes over the train videos' tokens."""
    workers: int | None = None
    """Processes that make videos, and threads that decode them; by default as many as processors and memory allow."""
    seed: int = 0
    """Seed of the world and of every stage."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: too few videos to hold some out, or what only a later stage would refuse.
        """
        require_path("--out", self.out)
        if self.videos < 12:
            raise UserError(f"--videos {self.videos} is too few: give at least 12, a third of which is held out.")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers {self.workers} is too few: give at least 1.")
        TrainConfig(
            run=self.out, site="resid/0", d_sae=(self.d_sae,), k=(self.k,), epochs=self.epochs, seed=self.seed
        )  # made to check its values before the stages ahead of it have run
