"""Scales, ticks and SVG drawings: what every chart is made of.

Drawn by hand instead of by a plotting library: text stays text, the same numbers give the same bytes, and every string
from outside is escaped. Sizes are in CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from collect.printable import printable

Number = float | int
"""Written out, because run-time type checks take `float` literally."""

INK = "#1c2126"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A linear or logarithmic map from numbers to pixels."""

    low: Number
    high: Number
    start_px: Number
    stop_px: Number
    log: bool = False

    def __call__(self, value: Number) -> float:
        """Pixel of a number, kept within the chart."""
        low, high, value = (math.log10(x) if self.log else x for x in (self.low, self.high, max(value, self.floor)))
        share = min(max((value - low) / (high - low), -0.02), 1.02)
        return self.start_px + share * (self.stop_px - self.start_px)

    @property
    def floor(self) -> float:
        """Smallest number that can be mapped."""
        return self.low if self.log else -math.inf

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the scale."""
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def linear_ticks(low: Number, high: Number, n: int = 5) -> list[float]:
    """About `n` multiples of 1, 2 or 5 times a power of ten between two numbers."""
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: Number, high: Number) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    return [float(f"{value:.6g}") for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]


def tick_text(value: Number) -> str:
    """A tick's label: as short as it can be."""
    return f"{value:,.6g}".replace("-", "−")


class Drawing:
    """Collects shapes and closes them into an SVG element."""

    def __init__(self, width: Number, height: Number, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._parts: list[str] = []

    def line(
        self, x1: Number, y1: Number, x2: Number, y2: Number, colour: str, width: Number = 1, dash: str = ""
    ) -> None:
        """A straight line."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<line x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dashes}/>'
        )

    def path(self, points: Sequence[tuple[float, float]], colour: str, width: Number = 1.6, dash: str = "") -> None:
        """A line through points."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        listed = " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
        self._parts.append(
            f'<polyline points="{listed}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
            f'stroke-linejoin="round"{dashes}/>'
        )

    def rect(self, x: Number, y: Number, width: Number, height: Number, fill: str, opacity: Number = 1) -> None:
        """A filled rectangle."""
        faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
        size = f'width="{_px(max(width, 0))}" height="{_px(height)}"'
        self._parts.append(f'<rect x="{_px(x)}" y="{_px(y)}" {size} fill="{fill}"{faint}/>')

    def dot(
        self,
        x: Number,
        y: Number,
        radius: Number,
        fill: str,
        stroke: str = "none",
        opacity: Number = 1,
        note: str = "",
    ) -> None:
        """A circle; the note is shown while a pointer is on it."""
        faint = f' fill-opacity="{opacity:g}"' if opacity < 1 else ""
        outline = f' stroke="{stroke}" stroke-width="1.6"' if stroke != "none" else ""
        shape = f'<circle cx="{_px(x)}" cy="{_px(y)}" r="{radius:g}" fill="{fill}"{outline}{faint}'
        self._parts.append(f"{shape}><title>{escape(printable(note, 400))}</title></circle>" if note else f"{shape}/>")

    def text(
        self,
        x: Number,
        y: Number,
        text: str,
        *,
        anchor: str = "start",
        colour: str = INK,
        size: Number = 12,
        bold: bool = False,
    ) -> None:
        """A line of text on its baseline."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}" fill="{colour}" font-size="{size:g}"{weight}>'
            f"{escape(printable(text))}</text>"
        )

    def file(self) -> str:
        """The content of an SVG file, on white."""
        width, height = self._size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {_px(height)}" font-family="sans-serif">\n'
            f"<title>{escape(printable(self._title))}</title>\n"
            f'<rect width="{width:g}" height="{_px(height)}" fill="white"/>\n' + "\n".join(self._parts) + "\n</svg>\n"
        )

    def finish(self) -> Markup:
        """The SVG element."""
        width, height = self._size
        return Markup(
            f'<svg class="chart" viewBox="0 0 {width:g} {_px(height)}" width="{width:g}" height="{_px(height)}" '
            f'role="img" aria-label="{escape(printable(self._title))}">{"".join(self._parts)}</svg>'
        )


def _px(value: Number) -> str:
    return f"{value:.1f}".removesuffix(".0")


def shorten(text: str, n: int) -> str:
    """At most `n` characters."""
    return text if len(text) <= n else text[: n - 1].rstrip() + "…"
