"""Operations: what an edit does to a latent's activations, how strongly, and at which tokens.

Text from the command line is parsed here once; everything after it takes the records. Nothing here imports torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from collect.errors import UserError

MAX_ADD_STRENGTH = 0.5
"""Largest norm an `add` may have, in multiples of the median residual norm at the site."""
MAX_SCALE = 1e6
"""Largest factor of a `scale`; it is far beyond the data's range, and keeps within that of float32."""

ScopeKind = Literal["visual", "track", "action", "event", "frames", "question", "last"]
TEXT_SCOPES: tuple[ScopeKind, ...] = ("question", "last")
"""Scopes among the tokens of the text, which the SAE was not trained on."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The tokens at which an edit takes place."""

    kind: ScopeKind = "visual"
    """`visual`: all visual tokens; `track`: those that the boxes of the tracks with a label cover; `action`: the frames
    of the action segments with a label; `event`: the first run of frames in which the target fires; `frames`: some time
    steps; `question`: every token of the question's text; `last`: the last token, which answers it."""
    label: str | None = None
    """Label of the tracks or action segments."""
    first: int = 0
    """First time step of `frames`, from 0."""
    last: int = 0
    """Last time step of `frames`, included."""

    @property
    def is_text(self) -> bool:
        """Whether it lies among the tokens of the text."""
        return self.kind in TEXT_SCOPES

    @classmethod
    def parse(cls, text: str) -> Scope | None:
        """Read what stands after `@` on the command line; None if it is none of the forms."""
        kind, separator, argument = text.partition(":")
        if kind in ("event", "question", "last", "visual") and not separator:
            return cls(kind=kind)
        if kind in ("track", "action") and argument.strip():
            return cls(kind=kind, label=argument.strip())
        steps = re.fullmatch(r"(\d{1,6})-(\d{1,6})", argument)
        if kind == "frames" and steps and int(steps[1]) <= int(steps[2]):
            return cls(kind="frames", first=int(steps[1]), last=int(steps[2]))
        return None

    def __str__(self) -> str:
        """Return the form used on the command line."""
        if self.kind == "frames":
            return f"frames:{self.first}-{self.last}"
        return self.kind if self.label is None else f"{self.kind}:{self.label}"


EVERYWHERE = Scope()


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One way to change a latent's activations: its kind, where it takes one its strength, and its scope.

    Written `ablate`, `scale:2`, `clamp:p95`, `add:0.25` or `swap` on the command line, with `@SCOPE` behind it where it
    does not take place at all visual tokens.
    """

    kind: str
    """`ablate`, `scale`, `clamp`, `add` or `swap`."""
    strength: float = 0.0
    """Factor of `scale`; quantile (0-1) of the active values of `clamp`; norm of `add` in median residual norms."""
    scope: Scope = EVERYWHERE

    @classmethod
    def parse(cls, text: str) -> Operation:
        """Read the form used on the command line.

        Raises:
            UserError: the text is none of the forms, or its strength is out of range.
        """
        written, at, place = text.partition("@")
        kind, _, argument = written.partition(":")
        scope = Scope.parse(place) if at else EVERYWHERE
        if scope is None:
            raise UserError(
                f"--operations {text!r} has an unknown scope: write @track:LABEL, @action:LABEL, @event, "
                "@frames:FIRST-LAST, @question or @last behind the operation, or nothing for all visual tokens."
            )
        if kind == "swap" and not argument and scope.is_text:
            raise UserError(f"--operations {text!r} swaps text, which two videos share: swap visual tokens.")
        if kind in ("ablate", "swap") and not argument:
            return cls(kind=kind, scope=scope)
        remedy = "write ablate, scale:FACTOR, clamp:pQUANTILE (such as clamp:p95), add:NORM or swap"
        try:
            number = float(argument.removeprefix("p") if kind == "clamp" else argument)
        except ValueError:
            raise UserError(f"--operations {text!r} is not an operation: {remedy}.") from None
        if kind == "scale" and 0 <= number <= MAX_SCALE and number != 1:
            return cls(kind="scale", strength=number, scope=scope)
        if kind == "clamp" and argument.startswith("p") and 0 <= number <= 100:
            return cls(kind="clamp", strength=number / 100, scope=scope)
        if kind == "add" and 0 < abs(number) <= MAX_ADD_STRENGTH:
            return cls(kind="add", strength=number, scope=scope)
        raise UserError(
            f"--operations {text!r} is not an operation: {remedy}; a scale lies between 0 and "
            f"{MAX_SCALE:g} and is not 1, a quantile lies between p0 and p100, and the norm of add is at most "
            f"{MAX_ADD_STRENGTH} median residual norms."
        )

    @property
    def sign(self) -> int:
        """Whether it lowers (-1) or raises (1) a latent's activations; 0 where that depends on them."""
        if self.kind in ("clamp", "swap"):
            return 0
        change = self.strength if self.kind == "add" else self.strength - 1
        return 1 if change > 0 else -1

    @property
    def magnitude(self) -> str:
        """Name of the norms of its change: operations with one name change every token by the same norm.

        Scaling by c changes the residual by |c - 1| f_j |W_dec[j]|, so an ablation and a doubling share their controls.
        """
        at = "" if self.scope == EVERYWHERE else f"@{self.scope}"
        if self.kind in ("ablate", "scale"):
            return f"scale {abs(self.strength - 1):g}{at}"
        if self.kind == "add":
            return f"add {abs(self.strength):g}{at}"
        return str(self)

    def __str__(self) -> str:
        """Return the form used on the command line, which is also the name in every table."""
        at = "" if self.scope == EVERYWHERE else f"@{self.scope}"
        if self.kind in ("ablate", "swap"):
            return self.kind + at
        shown = f"p{100 * self.strength:g}" if self.kind == "clamp" else f"{self.strength:g}"
        return f"{self.kind}:{shown}{at}"
