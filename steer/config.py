"""Arguments of the steer stage.

Only arguments and what can be checked about them alone; nothing here reads a file or imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from collect.arguments import require_at_least, require_wanted
from collect.data.counting import COUNTING_TAGS
from collect.errors import UserError

MAX_ADD_STRENGTH = 0.5
"""Largest norm an `add` may have, in multiples of the median residual norm at the site."""


MAX_SCALE = 1e6
"""Largest factor of a `scale`; it is far beyond the data's range, and keeps within that of float32."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One way to change a latent's activations: its kind and, where it takes one, its strength.

    Written `ablate`, `scale:2`, `clamp:p95` or `add:0.25` on the command line.
    """

    kind: str
    """`ablate`, `scale`, `clamp` or `add`."""
    strength: float
    """Factor of `scale`; quantile (0-1) of the active values of `clamp`; norm of `add` in median residual norms."""

    @classmethod
    def parse(cls, text: str) -> Operation:
        """Read the form used on the command line.

        Raises:
            UserError: the text is none of the forms, or its strength is out of range.
        """
        kind, _, argument = text.partition(":")
        remedy = "write ablate, scale:FACTOR, clamp:pQUANTILE (such as clamp:p95) or add:NORM"
        if kind == "ablate" and not argument:
            return cls(kind="ablate", strength=0.0)
        try:
            number = float(argument.removeprefix("p") if kind == "clamp" else argument)
        except ValueError:
            raise UserError(f"--operations {text!r} is not an operation: {remedy}.") from None
        if kind == "scale" and 0 <= number <= MAX_SCALE and number != 1:
            return cls(kind="scale", strength=number)
        if kind == "clamp" and argument.startswith("p") and 0 <= number <= 100:
            return cls(kind="clamp", strength=number / 100)
        if kind == "add" and 0 < abs(number) <= MAX_ADD_STRENGTH:
            return cls(kind="add", strength=number)
        raise UserError(
            f"--operations {text!r} is not an operation: {remedy}; a scale lies between 0 and "
            f"{MAX_SCALE:g} and is not 1, a quantile lies between p0 and p100, and the norm of add is at most "
            f"{MAX_ADD_STRENGTH} median residual norms."
        )

    def __str__(self) -> str:
        """Return the form used on the command line, which is also the name in every table."""
        if self.kind == "ablate":
            return self.kind
        return f"clamp:p{100 * self.strength:g}" if self.kind == "clamp" else f"{self.kind}:{self.strength:g}"


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
    """Operations per latent: ablate, scale:FACTOR, clamp:pQUANTILE, add:NORM (in median residual norms)."""
    budget_minutes: float = 60.0
    """Time for the exact ablation of every latent on the train videos, the most promising first; latents that are not
    reached keep the gradient's estimate. 0 for estimates only."""
    controls: int = 20
    """Controls per target and family (random, covariance-matched and other decoder directions); fewer run where the
    first ones show already that an effect does not exceed them."""
    items: int = 300
    """Most counting questions to evaluate in each of the train and held-out videos."""
    noncounting_items: Annotated[int, tyro.conf.arg(aliases=["--control-items"])] = 300
    """Most non-counting questions to evaluate in each of the train and held-out videos."""
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
            ("--items", self.items, 1),
            ("--noncounting-items", self.noncounting_items, 0),
            ("--batch-size", self.batch_size, 1),
        ):
            require_at_least(flag, value, least)
        if not 0 <= self.budget_minutes < float("inf"):
            raise UserError(f"--budget-minutes {self.budget_minutes} is no time: give a number of minutes, 0 or more.")
        if not self.operations:
            raise UserError("--operations is empty: name at least one, such as ablate.")
        parsed = [Operation.parse(text) for text in self.operations]
        if len({str(operation) for operation in parsed}) < len(parsed):
            raise UserError("--operations names one operation twice: leave one of them out.")
        if any(latent < 0 for latent in self.latents):
            raise UserError(f"--latents {min(self.latents)} is negative: latents are numbered from 0.")

    @property
    def parsed_operations(self) -> tuple[Operation, ...]:
        """The operations, parsed."""
        return tuple(Operation.parse(text) for text in self.operations)
