"""Arguments of `video-sae evaluate`.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_at_least, require_seed, require_wanted


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How good is an SAE on held-out videos, by itself and spliced into its model?"""

    run: Path
    """Run folder with activations and an SAE."""
    sae: str | None = None
    """Name of the SAE under `sae/`, or any folder that SAELens loads; may be left out when the run has only one. Add
    @SITE, such as lens@resid/12, if the SAE does not say what it reads."""
    data: Path | None = None
    """Folder of the videos and annotations; by default where the activations came from."""
    questions: int = 100
    """Most counting questions, and most other questions, about held-out videos to ask with the reconstruction spliced
    in; 0 to measure only the activations."""
    tokens: int = 2**20
    """Most tokens of held-out videos to reconstruct."""
    device: str = "auto"
    """Device of the model and the SAE: auto, cpu, cuda, cuda:1 …."""
    seed: int = 0
    """Seed of the draws: tokens, questions, bootstrap."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: a number is out of its range.
        """
        require_wanted("--sae", self.sae)
        require_at_least("--questions", self.questions, 0)
        require_at_least("--tokens", self.tokens, 1)
        require_seed(self.seed)
