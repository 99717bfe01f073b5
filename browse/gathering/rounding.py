"""Numbers as JSON: rounded to what a page can show, and null where they are missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

DIGITS = 5
"""Significant digits of a number in a JSON column."""


def rounded(value: Any, digits: int = DIGITS) -> float | None:
    """A number with few digits; None where it is missing, infinite or no number."""
    if value is None or isinstance(value, str):
        return None
    number = float(value)
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None


def all_rounded(values: Iterable[Any], digits: int = DIGITS) -> list[float | None]:
    """Several numbers."""
    return [rounded(value, digits) for value in values]


def plain(value: Any) -> Any:
    """One cell of a table: text, truth value, whole number, rounded number, or None."""
    if isinstance(value, str | bool) or value is None:
        return value
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind == "b":
        return bool(value)
    if kind in ("i", "u") or isinstance(value, int):
        return int(value)
    return rounded(value)


def row(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Some cells of a row under other names: `{new: old}`."""
    return {new: plain(values[old]) for new, old in names.items()}
