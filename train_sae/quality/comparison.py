"""All finished SAEs of a run side by side: a table, and a picture of FVU against L0 with its Pareto front."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from collect.artefact.folder import write_atomic, write_table
from collect.artefact.stage import SUMMARY_NAME
from collect.printable import printable
from train_sae.reading import read_summary

TABLE_NAME = "comparison.parquet"
CHART_NAME = "comparison.svg"

COMPARISON = pa.schema(
    [
        pa.field("sae", pa.string()),
        pa.field("site", pa.string()),
        pa.field("architecture", pa.string()),
        pa.field("d_sae", pa.int64()),
        pa.field("k", pa.int64()),
        pa.field("lr", pa.float64()),
        pa.field("n_training_tokens", pa.int64()),
        pa.field("split", pa.string()),
        pa.field("fvu", pa.float64()),
        pa.field("l0", pa.float64()),
        pa.field("n_dead", pa.int64()),
        pa.field("n_dense", pa.int64()),
        pa.field("cosine", pa.float64()),
        pa.field("relative_bias", pa.float64()),
        pa.field("decoder_coherence_mean", pa.float64()),
        pa.field("pareto", pa.bool_()),
    ]
)
COLOURS = ("#0b5fa5", "#c2410c", "#2f9e77", "#9b5fc0", "#b08a2e", "#5d6770", "#35a4a4", "#d0507a")
_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 180, 24, 56


class _Point(NamedTuple):
    x: float
    y: float


def write_comparison(folder: Path) -> Path:
    """Write the table and the picture of all finished SAEs if one site has several; return the table.

    Args:
        folder: `RUN/sae`.
    """
    path = folder / TABLE_NAME
    table = comparison(folder)
    if len(table) > 1:
        write_table(path, table, COMPARISON)
        write_atomic(folder / CHART_NAME, pareto_chart(table))
    return path


def comparison(folder: Path) -> pd.DataFrame:
    """One row per finished SAE, by site and name; on held-out videos if there are any.

    Args:
        folder: `RUN/sae`.
    """
    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob(f"*/{SUMMARY_NAME}")):
        summary = read_summary(path.parent)
        split = "held_out" if summary.get("held_out") else "train"
        known = {**summary[split], **summary, "sae": path.parent.name, "split": split, "pareto": False}
        rows.append({name: known.get(name) for name in COMPARISON.names})
    table = pd.DataFrame(rows, columns=COMPARISON.names).sort_values(["site", "sae"], kind="stable", ignore_index=True)
    for _, group in table.groupby("site"):
        table.loc[group.index, "pareto"] = on_pareto_front(group["l0"].tolist(), group["fvu"].tolist())
    return table


def on_pareto_front(l0: Sequence[float], fvu: Sequence[float]) -> list[bool]:
    """Whether no other SAE is at least as good in both and better in one (lower is better); never for NaN."""
    pairs = list(zip(l0, fvu, strict=True))
    return [a == a and b == b and not any(c <= a and d <= b and (c < a or d < b) for c, d in pairs) for a, b in pairs]


def pareto_chart(table: pd.DataFrame) -> str:
    """Draw FVU against L0, a colour per architecture and site, the Pareto front of each site as a line; an SVG file.

    Args:
        table: from `comparison`; rows without an FVU are left out.
    """
    table = table.dropna(subset=["fvu", "l0"])
    x_ticks, y_ticks = _ticks(0.0, float(table["l0"].max())), _ticks(0.0, float(table["fvu"].max()))
    x_top, y_top = x_ticks[-1], y_ticks[-1]

    def place(l0: float, fvu: float) -> _Point:
        x = _LEFT + l0 / x_top * (_WIDTH - _LEFT - _RIGHT)
        return _Point(round(x, 1), round(_HEIGHT - _BOTTOM - fvu / y_top * (_HEIGHT - _TOP - _BOTTOM), 1))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">',
        "<title>FVU against L0 of all SAEs of the run</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for tick in x_ticks:
        at = place(tick, 0.0)
        parts.append(_line(at, place(tick, y_top), "#e6e9ec"))
        parts.append(_text(at.x, at.y + 18, f"{tick:g}", "middle"))
    for tick in y_ticks:
        at = place(0.0, tick)
        parts.append(_line(at, place(x_top, tick), "#e6e9ec"))
        parts.append(_text(at.x - 8, at.y + 4, f"{tick:g}", "end"))
    parts.append(_text(place(x_top / 2, 0.0).x, _HEIGHT - 14.0, "L0 (active latents a token)", "middle"))
    parts.append(_text(float(_LEFT), _TOP - 8.0, "FVU", "end"))
    groups = list(table.groupby(["site", "architecture"], sort=True))
    for _, group in table[table["pareto"]].groupby("site"):
        front = [place(l0, fvu) for l0, fvu in group.sort_values("l0")[["l0", "fvu"]].itertuples(index=False)]
        points = " ".join(f"{x},{y}" for x, y in front)
        parts.append(f'<polyline points="{points}" fill="none" stroke="#aab2ba" stroke-dasharray="4 3"/>')
    for number, ((site, architecture), group) in enumerate(groups):
        colour = COLOURS[number % len(COLOURS)]
        for row in group.to_dict("records"):
            at = place(row["l0"], row["fvu"])
            note = f"{row['sae']}: FVU {row['fvu']:.4f}, L0 {row['l0']:.1f}, {row['n_dead']} dead ({row['split']})"
            parts.append(
                f'<circle cx="{at.x}" cy="{at.y}" r="{5 if row["pareto"] else 3.5}" fill="{colour}">'
                f"<title>{escape(printable(note))}</title></circle>"
            )
        y = _TOP + 18.0 * number
        parts.append(f'<circle cx="{_WIDTH - _RIGHT + 16}" cy="{y}" r="4" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 26.0, y + 4, f"{architecture} {site}", "start"))
    return "\n".join([*parts, "</svg>\n"])


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to beyond `high`."""
    rough = (high - low) / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(low + step * i, 10) for i in range(math.ceil((high - low) / step) + 1)]


def _line(start: _Point, stop: _Point, colour: str) -> str:
    return f'<line x1="{start.x}" y1="{start.y}" x2="{stop.x}" y2="{stop.y}" stroke="{colour}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    place = f'x="{round(x, 1)}" y="{round(y, 1)}" text-anchor="{anchor}"'
    return f'<text {place} font-size="12" fill="#39424a">{escape(printable(text))}</text>'
