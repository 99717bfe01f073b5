"""Arguments of the steer stage.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collect.arguments import require_at_least, require_seed, require_wanted
from collect.data.counting import COUNTING_TAGS
from collect.errors import UserError
from steer.edits.operations import Operation

ANALYSES = ("doses", "swaps", "events", "rivals", "counters", "flow", "sets")
"""Further analyses, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class SteerConfig:
    """How does each latent change the answers to counting questions?"""

    run: Path
    """Run folder with activations and an SAE."""
    sae: str | None = None
    """Name of the SAE under `sae/`, or any folder that SAELens loads; may be left out when the run has only one. Write
    @SITE behind it, such as lens@resid/12, where the SAE does not say what it reads."""
    data: Path | None = None
    """Folder of the videos and annotations; where the activations came from if not given."""
    tasks: tuple[str, ...] = COUNTING_TAGS
    """Tags of the counting questions; every other question is a non-counting question."""
    latents: tuple[int, ...] = ()
    """Latents to run on the held-out videos, beside those of the sweep and of the labels."""
    top: int = 3
    """Latents per subject of counting questions to confirm on the held-out videos: those whose ablation moves its
    questions on the train videos most, and others least. 0 for none, and for no set of the most costly latents."""
    associated: int = 4
    """Labels to take from the features stage, by AUROC on the train videos: the best latent of each alone, and its
    latents together."""
    operations: tuple[str, ...] = ("ablate", "scale:2")
    """Operations per latent: ablate, scale:FACTOR, clamp:pQUANTILE, add:NORM (in median residual norms), swap (with a
    video of another count). With @SCOPE behind it, one takes place at some tokens only: @track:LABEL, @action:LABEL,
    @event (the first run of frames in which the target fires), @frames:FIRST-LAST, @question or @last (text tokens)."""
    analyses: tuple[str, ...] = ("doses", "swaps", "events", "rivals", "counters")
    """What else is measured of the confirmed single latents: doses, swaps, events, rivals, counters, flow, sets."""
    budget_minutes: float = 60.0
    """Time for the exact ablation of every latent on the train videos, the most promising first; latents that are not
    reached keep the gradient's estimate. 0 for estimates only."""
    controls: int = 20
    """Controls per target and family (random, covariance-matched and other decoder directions); fewer run where the
    first ones show already that an effect does not exceed them."""
    items: tuple[int, int] = (300, 300)
    """Most counting and most non-counting questions to evaluate in each of the train and held-out videos."""
    batch_size: int = 8
    """Edited copies of a video per forward."""
    device: str = "auto"
    """Device of the model: auto, cpu, cuda, cuda:1 …."""
    seed: int = 0
    """Seed of every draw: questions, controls, bootstrap, sign flips."""

    def __post_init__(self) -> None:
        """Check the ranges and the names of the operations.

        Raises:
            UserError: a number is out of its range or an operation is unknown.
        """
        require_wanted("--sae", self.sae)
        for flag, value, least in (
            ("--top", self.top, 0),
            ("--associated", self.associated, 0),
            ("--controls", self.controls, 0),
            ("--items", self.items[0], 1),
            ("--items (non-counting)", self.items[1], 0),
            ("--batch-size", self.batch_size, 1),
        ):
            require_at_least(flag, value, least)
        require_seed(self.seed)
        if not 0 <= self.budget_minutes < float("inf"):
            raise UserError(f"--budget-minutes {self.budget_minutes} is no time: give a number of minutes, 0 or more.")
        if not self.operations:
            raise UserError("--operations is empty: name at least one, such as ablate.")
        parsed = [Operation.parse(text) for text in self.operations]
        if len({str(operation) for operation in parsed}) < len(parsed):
            raise UserError("--operations names one operation twice: leave one of them out.")
        for name in self.analyses:
            if name not in ANALYSES:
                raise UserError(f"--analyses {name!r} is unknown: choose from {', '.join(ANALYSES)}.")
        if any(latent < 0 for latent in self.latents):
            raise UserError(f"--latents {min(self.latents)} is negative: latents are numbered from 0.")

    @property
    def parsed_operations(self) -> tuple[Operation, ...]:
        """The operations, parsed."""
        return tuple(Operation.parse(text) for text in self.operations)
