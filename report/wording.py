"""How the report writes numbers, targets and operations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from steer.edits.operations import Operation
from steer.reading import Target


def is_known(value: Any) -> bool:
    """Whether a cell holds a value: neither None nor NaN nor infinite."""
    return value is not None and bool(value == value) and value not in (math.inf, -math.inf)  # NaN is unlike itself


def number(value: Any, digits: int = 3) -> str:
    """A number with a true minus sign; a dash if it is missing."""
    return f"{float(value):.{digits}f}".replace("-", "−") if is_known(value) else "–"


def signed(value: Any, digits: int = 3) -> str:
    """A number with its sign."""
    return f"{float(value):+.{digits}f}".replace("-", "−") if is_known(value) else "–"


def percent(value: Any) -> str:
    """A share in whole percent."""
    return f"{100 * float(value):.0f}\u00a0%".replace("-", "−") if is_known(value) else "–"


def interval(low: Any, high: Any, digits: int = 3, *, sign: bool = False) -> str:
    """An interval in brackets; empty if it is missing."""
    if not (is_known(low) and is_known(high)):
        return ""
    show = signed if sign else number
    return f"[{show(low, digits)}, {show(high, digits)}]"


def probability(value: Any) -> str:
    """A p- or q-value."""
    if not is_known(value):
        return "–"
    return "< 0.001" if float(value) < 0.001 else f"{float(value):.3f}"


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """`1 latent`, `3 latents`."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def target_name(target: Target) -> str:
    """What a target is called in a sentence."""
    n = len(target.latents)
    if target.label is not None:
        return f"the {n} latents of “{target.label}”"
    return f"the set of {n} latents" if target.is_set else f"latent {target.latents[0]}"


def action(operation: str) -> str:
    """What is done to a latent, as the first words of a sentence."""
    parsed = Operation.parse(operation)
    place = {
        "visual": "",
        "track": f" on “{parsed.scope.label}”",
        "action": f" during “{parsed.scope.label}”",
        "event": " at its first event",
        "frames": f" in time steps {parsed.scope.first} to {parsed.scope.last}",
        "question": " at the question’s tokens",
        "last": " at the last token",
    }[parsed.scope.kind]
    if parsed.kind in ("ablate", "swap"):
        return ("Ablating" if parsed.kind == "ablate" else "Swapping") + place
    if parsed.kind == "scale":
        return ("Doubling" if parsed.strength == 2 else f"Scaling by {parsed.strength:g}") + place
    if parsed.kind == "clamp":
        return f"Clamping to its p{100 * parsed.strength:g}{place}"
    return f"Adding{place} {signed(parsed.strength, 2)} median norms of"


def change(row: Mapping[str, Any], name: str, unit: str = "") -> str:
    """A change with its interval, where it has one."""
    between = interval(row[f"{name}_low"], row[f"{name}_high"], 2, sign=True)
    return f"{signed(row[name], 2)}{unit} {between}".strip()
