"""Pictures of one latent on one video: its activations over the token grid, the annotated boxes, the exemplar's patch.

Heat is drawn patch by patch, never smoothed, so that a picture shows exactly what the model's tokens carry. Its
strength is the activation as a share of the latent's maximum over all videos, so that pictures of one latent are
comparable. The frame is dimmed where the latent is silent and the heat is thin, so that what it fires on keeps its
colour.

Pure functions from arrays to images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

from collect.printable import printable

Rgb = tuple[int, int, int]

INK: Rgb = (33, 37, 41)
FAINT: Rgb = (134, 142, 150)
PAPER: Rgb = (255, 255, 255)
MATCH: Rgb = (43, 230, 140)
"""Boxes whose label is the latent's."""
OTHER: Rgb = (235, 238, 242)
"""Boxes with another label."""
PEAK: Rgb = (255, 255, 255)
"""Patch of the exemplar."""
COLD: Rgb = (255, 200, 40)
HOT: Rgb = (226, 26, 60)
MAX_OPACITY = 0.5
DIMMING = 0.35
"""Share of the way to black of a patch where the latent is silent."""
MIN_SHARE = 0.02
"""Share of the maximum below which a patch stays clear."""
STRIP_COLUMNS = 8
MAX_LABEL = 60
"""Characters of a label that are drawn."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """An annotated box on one frame."""

    label: str
    box: Float64[np.ndarray, " 4"]
    """(x1, y1, x2, y2), as fractions of the frame."""
    is_match: bool
    """Whether the latent is associated with this label."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One frame with everything that is drawn on it."""

    frame: UInt8[np.ndarray, "height width 3"]
    activations: Float[np.ndarray, "row col"]
    patches: Float64[np.ndarray, "row col 4"]
    """Patch boxes (x1, y1, x2, y2), as fractions of the frame."""
    outlines: tuple[Outline, ...]
    time_s: float
    peak: tuple[int, int] | None
    """Row and column of the exemplar, if it lies in this frame."""
    is_during: bool | None = None
    """Whether the action or sound that the latent is associated with goes on; None where that is not the question."""


def render_frame(panel: Panel, maximum: float, *, longer_side_px: int = 640) -> Image.Image:
    """Draw one frame at a size to look at.

    Args:
        panel: the frame.
        maximum: activation that is drawn with full heat.
        longer_side_px: of the picture.
    """
    height, width = panel.frame.shape[:2]
    scale = longer_side_px / max(height, width)
    size = (round(width * scale), round(height * scale))
    return _draw_panel(panel, maximum, size, font_px=16, line_px=3, name_all=True)


def render_strip(panels: Sequence[Panel], maximum: float, *, height_px: int = 150) -> Image.Image:
    """Draw the frames of a video side by side, in rows of up to eight, with time and activation below each.

    Args:
        panels: the frames in order, all of one size.
        maximum: activation that is drawn with full heat.
        height_px: of each frame.
    """
    height, width = panels[0].frame.shape[:2]
    cell = (round(width * height_px / height), height_px)
    gap_px, caption_px = 6, 34
    n_columns = min(STRIP_COLUMNS, len(panels))
    n_rows = -(-len(panels) // n_columns)
    strip = Image.new(
        "RGB", (n_columns * (cell[0] + gap_px) + gap_px, n_rows * (cell[1] + gap_px + caption_px) + gap_px), PAPER
    )
    draw = ImageDraw.Draw(strip)
    for index, panel in enumerate(panels):
        x = gap_px + (index % n_columns) * (cell[0] + gap_px)
        y = gap_px + (index // n_columns) * (cell[1] + gap_px + caption_px)
        strip.paste(_draw_panel(panel, maximum, cell, font_px=10, line_px=2, name_all=False), (x, y))
        if panel.peak is not None:
            draw.rectangle((x - 3, y - 3, x + cell[0] + 2, y + cell[1] + 2), outline=HOT, width=3)
        _draw_caption(draw, panel, maximum, x, y + cell[1] + 5, cell[0])
    return strip


def heat(share: float) -> tuple[Rgb, float]:
    """Colour and opacity of an activation, given as a share of the maximum."""
    share = min(max(share, 0.0), 1.0)
    if share < MIN_SHARE:
        return COLD, 0.0
    red, green, blue = (round(cold + share * (hot - cold)) for cold, hot in zip(COLD, HOT, strict=True))
    return (red, green, blue), MAX_OPACITY * (0.25 + 0.75 * share)


def _draw_panel(
    panel: Panel, maximum: float, size: tuple[int, int], *, font_px: int, line_px: int, name_all: bool
) -> Image.Image:
    image = Image.fromarray(panel.frame).resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    shade = Image.new("RGBA", size, (0, 0, 0, round(255 * DIMMING)))
    glow = Image.new("RGBA", size, (0, 0, 0, 0))
    shading, glowing = ImageDraw.Draw(shade), ImageDraw.Draw(glow)
    for row, col in np.argwhere(panel.activations > 0):
        share = min(float(panel.activations[row, col]) / maximum, 1.0) if maximum > 0 else 1.0
        colour, opacity = heat(share)
        if opacity:
            corners = _pixels(panel.patches[row, col], size)
            shading.rectangle(corners, fill=(0, 0, 0, round(255 * DIMMING * (1 - share))))
            glowing.rectangle(corners, fill=(*colour, round(255 * opacity)))
    image = Image.alpha_composite(Image.alpha_composite(image, shade), glow).convert("RGB")
    draw = ImageDraw.Draw(image)
    # Matching boxes come last, so that no other box or label covers them.
    for outline in sorted(panel.outlines, key=lambda outline: outline.is_match):
        _draw_outline(draw, outline, size, line_px=line_px)
    for outline in sorted(panel.outlines, key=lambda outline: outline.is_match):
        if name_all or outline.is_match:
            _draw_name(draw, outline, size, font_px=font_px)
    if panel.peak is not None:
        left, top, right, bottom = _pixels(panel.patches[panel.peak], size)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=INK, width=line_px + 2)
        draw.rectangle((left, top, right, bottom), outline=PEAK, width=line_px)
    return image


def _draw_outline(draw: ImageDraw.ImageDraw, outline: Outline, size: tuple[int, int], *, line_px: int) -> None:
    left, top, right, bottom = _pixels(outline.box, size)
    width = line_px if outline.is_match else max(1, line_px - 1)
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=INK, width=1)
    draw.rectangle((left, top, right, bottom), outline=MATCH if outline.is_match else OTHER, width=width)


def _draw_name(draw: ImageDraw.ImageDraw, outline: Outline, size: tuple[int, int], *, font_px: int) -> None:
    left, top, _, _ = _pixels(outline.box, size)
    font = ImageFont.load_default(size=font_px)
    label = printable(outline.label, MAX_LABEL)  # a line break or a lone surrogate cannot be drawn
    text_width = round(draw.textlength(label, font=font)) + font_px // 2 + 2
    text_height = font_px + 4
    x = max(0, min(left, size[0] - text_width))
    # Above the box where there is room, else inside it.
    y = top - text_height if top >= text_height else top
    draw.rectangle((x, y, x + text_width, y + text_height - 1), fill=MATCH if outline.is_match else OTHER)
    draw.text((x + text_width / 2, y + text_height / 2), label, fill=INK, font=font, anchor="mm")


def _draw_caption(draw: ImageDraw.ImageDraw, panel: Panel, maximum: float, x: int, y: int, width: int) -> None:
    """A bar with the frame's highest activation, its time, and whether the associated segment goes on."""
    highest = float(panel.activations.max())
    share = min(highest / maximum, 1.0) if maximum > 0 else 0.0
    draw.rectangle((x, y, x + width - 1, y + 4), fill=(233, 236, 239))
    if share > 0:
        draw.rectangle((x, y, x + max(1, round(share * (width - 1))), y + 4), fill=heat(max(share, MIN_SHARE))[0])
    if panel.is_during is not None:
        draw.rectangle((x, y + 7, x + width - 1, y + 9), fill=MATCH if panel.is_during else (233, 236, 239))
    font = ImageFont.load_default(size=11)
    draw.text((x, y + 12), f"{panel.time_s:.1f} s", fill=INK, font=font)
    draw.text((x + width - 1, y + 12), f"{highest:.2f}" if highest > 0 else "0", fill=FAINT, font=font, anchor="ra")


def _pixels(box: Float64[np.ndarray, " 4"], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Inclusive pixel corners of a box, at least one pixel, inside the picture."""
    (x1, y1, x2, y2), (width, height) = box.tolist(), size
    left, right = (min(max(round(edge * width), 0), width) for edge in (x1, x2))
    top, bottom = (min(max(round(edge * height), 0), height) for edge in (y1, y2))
    left, top = min(left, width - 1), min(top, height - 1)
    return left, top, max(left, right - 1), max(top, bottom - 1)
