"""Arguments of the site profile.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collect.arguments import require_at_least, require_path, require_seed
from collect.data.counting import COUNTING_TAGS
from collect.video.sampling import FrameSampling


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Where does the answer read the video? The fall of the answer margin per site."""

    data: Path
    """Folder of the videos and annotations, in Perception Test's layout."""
    model: str
    """Folder or hub name of the video VLM."""
    out: Path
    """Run folder; the profile goes to its `profile/`."""
    frames: str | None = None
    """Frames of a clip, as for `collect`: `16` evenly spread, `2fps` or `2fps:64` (at most 64), or ids such as
    `0,30,60`; by default the model family's own choice."""
    sites: tuple[str, ...] = ()
    """Sites to compare; the projector and every resid/i if not given."""
    items: int = 60
    """Most questions to ask, drawn evenly from the kinds of question."""
    tasks: tuple[str, ...] = COUNTING_TAGS
    """Tags of the counting questions."""
    batch_size: int = 8
    """Sequences per forward."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the model; auto takes the checkpoint's own."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:1 …."""
    seed: int = 0
    """Seed of the draw of questions and of the bootstrap."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: a number is out of its range.
        """
        require_path("--out", self.out)
        require_at_least("--items", self.items, 1)
        require_at_least("--batch-size", self.batch_size, 1)
        require_seed(self.seed)
        if self.frames is not None:
            FrameSampling.parse(self.frames)
