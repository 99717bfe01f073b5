"""The charts of the report: site profile, training curve, effects against controls, accuracies.

Pure functions from tables to inline SVG.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from collect.drawing import INK, Drawing, Number, Scale, shorten, tick_text
from report.target_rows import TargetRow, beyond_controls
from report.verdicts import ALL_COUNTING
from report.wording import is_known, number
from steer.controls import FAMILIES
from steer.edits.operations import Operation

MUTED, RULE, GRID = "#5d6770", "#aab2ba", "#e6e9ec"
EFFECT, OTHER, PICKED = "#0b5fa5", "#c2410c", "#fff3d6"
FAMILY_COLOURS = {"random": "#8a949e", "covariance": "#2f9e77", "decoder": "#9b5fc0"}
KIND_COLOURS = ("#4a90d0", "#35a4a4", "#7a7fd6", "#5fae57", "#b08a2e")


def profile_chart(table: pd.DataFrame, picked: str, kept_share: Number) -> Markup:
    """The fall of the answer margin per site and kind of question, the picked site marked.

    Args:
        table: profile.parquet.
        picked: the picked site.
        kept_share: share of the projector's fall that the picked site had to keep, drawn as a line.
    """
    sites = list(dict.fromkeys(table.sort_values("depth", kind="stable")["site"]))
    kinds = [kind for kind in dict.fromkeys(table["kind"]) if not kind.startswith("all ")]
    counting = set(table.loc[table["counting"].astype(bool), "kind"])
    shown = [ALL_COUNTING, *[kind for kind in kinds if kind in counting], "all non-counting"]
    rows = {(row["site"], row["kind"]): row for row in table.to_dict("records")}
    shown = [kind for kind in shown if (sites[0], kind) in rows]
    edges = [row[name] for row in rows.values() if row["kind"] in shown for name in ("fall", "fall_low", "fall_high")]
    known = [0.0, *(edge for edge in edges if is_known(edge))]
    spread = (max(known) - min(known)) or 1.0
    width, left, right, top, bottom = 560, 52, 14, 14 + 18 * -(-len(shown) // 3), 300
    drawing = Drawing(width, bottom + 46, "Fall of the answer margin per site")
    y = Scale(low=min(known) - 0.03 * spread, high=max(known) + 0.05 * spread, start_px=bottom, stop_px=top)
    step = (width - left - right) / len(sites)
    x = {site: left + (place + 0.5) * step for place, site in enumerate(sites)}
    if picked in x:
        drawing.rect(x[picked] - step / 2, top, step, bottom - top, PICKED)
    for tick in y.ticks:
        drawing.line(left, y(tick), width - right, y(tick), RULE if tick == 0 else GRID)
        drawing.text(left - 7, y(tick) + 4, tick_text(tick), anchor="end", colour=MUTED)
    for site in sites:
        drawing.text(x[site], bottom + 17, site, anchor="middle", size=11, bold=site == picked)
    if picked in x:
        drawing.text(x[picked], bottom + 32, "picked", anchor="middle", size=11, colour=MUTED)
    first = rows.get((sites[0], ALL_COUNTING))
    if first is not None and first["fall"] > 0:
        drawing.line(left, y(kept_share * first["fall"]), width - right, y(kept_share * first["fall"]), MUTED, 1, "2 4")
    for place, kind in reversed(list(enumerate(shown))):
        colour, weight, dash = _kind_style(kind, place)
        points = [(x[site], y(rows[site, kind]["fall"])) for site in sites]
        drawing.path(points, colour, weight, dash)
        for site, (px, py) in zip(sites, points, strict=True):
            row = rows[site, kind]
            if kind == ALL_COUNTING and is_known(row["fall_low"]) and is_known(row["fall_high"]):
                drawing.line(px, y(row["fall_low"]), px, y(row["fall_high"]), colour, 2)
            drawing.dot(px, py, 3.6 if weight > 2 else 2.4, colour)
    for place, kind in enumerate(shown):
        colour, weight, dash = _kind_style(kind, place)
        px, py = left + (place % 3) * 168, 12 + 18 * (place // 3)
        drawing.line(px, py - 4, px + 22, py - 4, colour, weight, dash)
        drawing.text(px + 28, py, shorten(kind, 22))
    return drawing.finish()


def _kind_style(kind: str, place: int) -> tuple[str, float, str]:
    if kind == ALL_COUNTING:
        return EFFECT, 2.6, ""
    if kind == "all non-counting":
        return OTHER, 2.2, "6 3"
    return KIND_COLOURS[(place - 1) % len(KIND_COLOURS)], 1.3, ""


def training_chart(curve: pd.DataFrame, held_out_fvu: Number | None) -> Markup:
    """FVU, L0 and dead latents over the training tokens, one below another.

    Args:
        curve: rows of metrics.jsonl.
        held_out_fvu: FVU on held-out videos at the end, drawn as a mark at the right.
    """
    width, left, right = 560, 52, 64
    known = [row for row in curve.to_dict("records") if is_known(row.get("tokens")) and row["tokens"] > 0]
    x = Scale(
        low=0.0, high=max((float(row["tokens"]) for row in known), default=1.0), start_px=left, stop_px=width - right
    )
    panels = (("fvu", "FVU", 130.0), ("l0", "L0", 58.0), ("dead", "dead", 58.0))
    drawing = Drawing(width, 16 + sum(height + 30 for _, _, height in panels) + 12, "Training of the SAE")
    top = 16.0
    for column, title, height in panels:
        rows = [row for row in known if is_known(row.get(column))]
        values = [float(row[column]) for row in rows]
        marks = [held_out_fvu] if column == "fvu" and is_known(held_out_fvu) and held_out_fvu is not None else []
        drawing.text(left, top - 4, title, bold=True)
        if values:
            y = _value_scale([*values, *marks], log=column == "fvu", start_px=top + height, stop_px=top)
            ticks = y.ticks if column == "fvu" else [y.ticks[0], y.ticks[-1]]
            for tick in ticks:
                drawing.line(left, y(tick), width - right, y(tick), GRID)
                drawing.text(left - 7, y(tick) + 4, tick_text(tick), anchor="end", colour=MUTED, size=11)
            points = [(x(float(row["tokens"])), y(value)) for row, value in zip(rows, values, strict=True)]
            drawing.path(points, EFFECT, 1.8)
            if len(points) == 1:
                drawing.dot(*points[0], 3, EFFECT)
            drawing.text(width - right + 8, points[-1][1] + 4, _rounded(values[-1]), colour=EFFECT, size=11)
            for mark in marks:
                drawing.dot(width - right, y(mark), 4, "white", OTHER)
                if abs(y(mark) - points[-1][1]) > 12:
                    drawing.text(width - right + 8, y(mark) + 4, _rounded(mark), colour=OTHER, size=11)
        top += height + 30
    for tick in x.ticks:
        drawing.text(x(tick), top - 14, _thousands(tick), anchor="middle", colour=MUTED, size=11)
    drawing.text((left + width - right) / 2, top + 3, "training tokens", anchor="middle", colour=MUTED, size=11)
    return drawing.finish()


def _value_scale(values: Sequence[float], *, log: bool, start_px: Number, stop_px: Number) -> Scale:
    positive = min(values) > 0 and max(values) / min(values) > 4
    if log and positive:
        return Scale(low=min(values) / 1.15, high=max(values) * 1.1, start_px=start_px, stop_px=stop_px, log=True)
    return Scale(low=0.0, high=(max(values) or 1.0) * 1.08, start_px=start_px, stop_px=stop_px)


def _rounded(value: Number) -> str:
    return tick_text(float(f"{value:.3g}"))


def _thousands(value: Number) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def accuracy_bar(row: Mapping[str, Any]) -> Markup:
    """The accuracy on one kind of question as a bar with its interval, and the three baselines as marks."""
    width, height = 120, 26
    drawing = Drawing(width, height, f"Accuracy {number(row['accuracy'], 2)}")
    x = Scale(low=0, high=1, start_px=4, stop_px=width - 6)
    drawing.rect(x(0), 7, x(1) - x(0), 12, GRID)
    drawing.rect(x(0), 7, x(row["accuracy"]) - x(0), 12, EFFECT if row["counting"] else OTHER, 0.75)
    if is_known(row["accuracy_low"]):
        drawing.line(x(row["accuracy_low"]), 13, x(row["accuracy_high"]), 13, INK, 1.6)
    drawing.line(x(row["chance"]), 3, x(row["chance"]), 23, INK, 1, "2 2")
    for name, y in (("answer_frequency", 4.5), ("question_only", 21.5)):
        drawing.dot(x(row[name]), y, 3.2, INK if name == "answer_frequency" else "white", INK)
    return drawing.finish()


ROW_PX = 58
LANE_PX = 7
TITLE_CHARACTERS = 16
"""In a line of a target's title, which must not reach into the chart."""


def effects_chart(rows: Sequence[TargetRow], operation: str, controls: pd.DataFrame) -> Markup:
    """Effects of one operation on the answer margin, each against its matched controls.

    Per target: a filled dot with the change on counting questions and its interval, a ring for the non-counting
    ones, and below them one lane of dots per family of controls, with marks at plus and minus the largest of their
    sizes.
    Latents share one axis; the set, which moves more, has its own.

    Args:
        rows: the targets, from top to bottom.
        operation: the operation to draw.
        controls: controls.parquet.
    """
    width, left, right, top = 560, 118, 16, 6
    own = controls[controls["magnitude"] == Operation.parse(operation).magnitude]
    groups = [[row for row in rows if row.target.is_set == together] for together in (False, True)]
    groups = [group for group in groups if group]
    axis_px = 34
    height = top + sum(ROW_PX * len(group) + axis_px for group in groups)
    drawing = Drawing(width, height, f"Effect of {operation} on the answer margin")
    y = float(top)
    for group in groups:
        found = {row.target.id: next(e for e in row.effects if e["operation"] == operation) for row in group}
        dots = {row.target.id: own[own["target"] == row.target.id] for row in group}
        x = _effect_scale(found, dots, left, width - right)
        bottom = y + ROW_PX * len(group)
        for tick in x.ticks:
            drawing.line(x(tick), y, x(tick), bottom, MUTED if tick == 0 else GRID)
            drawing.text(x(tick), bottom + 15, signed_tick(tick), anchor="middle", colour=MUTED, size=11)
        for row in group:
            _draw_effect(drawing, x, y, row, found[row.target.id], dots[row.target.id])
            y += ROW_PX
        drawing.line(left, bottom, width - right, bottom, RULE)
        y += axis_px
    return drawing.finish()


def signed_tick(value: Number) -> str:
    """A tick of an axis of changes."""
    return f"+{tick_text(value)}" if value > 0 else tick_text(value)


def _effect_scale(
    found: Mapping[str, Mapping[str, Any]], dots: Mapping[str, pd.DataFrame], start_px: Number, stop_px: Number
) -> Scale:
    names = ("delta_margin", "delta_margin_low", "delta_margin_high")
    names += ("delta_margin_noncounting", "delta_margin_noncounting_low", "delta_margin_noncounting_high")
    values = [0.0, *(float(row[name]) for row in found.values() for name in names if is_known(row[name]))]
    for row in found.values():
        if is_known(row["control_max"]):
            values += [float(row["control_max"]), -float(row["control_max"])]
    values += [float(value) for frame in dots.values() for value in frame["delta_margin"] if is_known(value)]
    spread = (max(values) - min(values)) or 1.0
    low, high = min(values) - 0.04 * spread, max(values) + 0.04 * spread
    return Scale(low=low, high=high, start_px=start_px, stop_px=stop_px)


def _draw_effect(
    drawing: Drawing, x: Scale, top: Number, row: TargetRow, effect: Mapping[str, Any], controls: pd.DataFrame
) -> None:
    limit = effect["control_max"]
    if is_known(limit):
        drawing.rect(x(-limit), top + 3, x(limit) - x(-limit), ROW_PX - 6, "#eef1f3")
        drawing.line(x(0), top, x(0), top + ROW_PX, MUTED)
    beats = beyond_controls(effect)
    title = textwrap.wrap(row.title, TITLE_CHARACTERS, max_lines=2, placeholder="…") or [""]
    first = top + 20 - 7 * (len(title) - 1)
    for place, line in enumerate(title):
        drawing.text(4, first + 15 * place, line, bold=beats, size=12.5)
    drawing.text(4, first + 15 * len(title), shorten(row.label, 19), colour=MUTED, size=11)
    main, other = top + 12, top + 24
    if is_known(effect["delta_margin_noncounting"]):
        if is_known(effect["delta_margin_noncounting_low"]):
            drawing.line(
                x(effect["delta_margin_noncounting_low"]),
                other,
                x(effect["delta_margin_noncounting_high"]),
                other,
                OTHER,
                1.4,
            )
        drawing.dot(x(effect["delta_margin_noncounting"]), other, 3.4, "white", OTHER)
    if is_known(effect["delta_margin_low"]):
        drawing.line(x(effect["delta_margin_low"]), main, x(effect["delta_margin_high"]), main, EFFECT, 2.2)
    drawing.dot(x(effect["delta_margin"]), main, 4.4, EFFECT if beats else "white", EFFECT)
    for place, family in enumerate(FAMILIES):
        lane = top + 34 + LANE_PX * place
        colour = FAMILY_COLOURS[family]
        for value in controls.loc[controls["family"] == family, "delta_margin"]:
            drawing.dot(x(float(value)), lane, 1.7, colour, opacity=0.55)
        largest = effect[f"control_max_{family}"]
        if is_known(largest):
            for edge in (-largest, largest):
                drawing.line(x(edge), lane - 3.4, x(edge), lane + 3.4, colour, 1.8)


def effects_key() -> Markup:
    """The key of the effect charts."""
    drawing = Drawing(560, 62, "Key of the effect charts")
    drawing.line(6, 12, 30, 12, EFFECT, 2.2)
    drawing.dot(18, 12, 4.4, EFFECT, EFFECT)
    drawing.text(38, 16, "its questions, beyond its controls")
    drawing.line(286, 12, 310, 12, EFFECT, 2.2)
    drawing.dot(298, 12, 4.4, "white", EFFECT)
    drawing.text(318, 16, "its questions, not surely beyond them")
    drawing.line(6, 32, 30, 32, OTHER, 1.4)
    drawing.dot(18, 32, 3.4, "white", OTHER)
    drawing.text(38, 36, "non-counting questions")
    drawing.rect(286, 25, 24, 14, "#e3e8eb")
    drawing.text(318, 36, "no larger than the largest control")
    for place, (family, colour) in enumerate(FAMILY_COLOURS.items()):
        px = 6 + 180 * place
        for offset in (3, 10, 15):
            drawing.dot(px + offset, 52, 1.8, colour, opacity=0.7)
        drawing.line(px + 22, 48, px + 22, 56, colour, 1.8)
        drawing.text(px + 32, 56, f"{family}, its largest")
    return drawing.finish()
