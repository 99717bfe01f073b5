"""All finished SAEs of a run side by side: a table, and a picture of FVU against L0 with its Pareto front."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from collect.artefact.folder import write_atomic, write_table
from collect.artefact.stage import SUMMARY_NAME
from collect.artefact.table import column, table_schema
from collect.drawing import Drawing, Scale, tick_text
from train_sae.reading import read_summary

TABLE_NAME = "comparison.parquet"
CHART_NAME = "comparison.svg"

COMPARISON = table_schema(
    "One row per finished SAE of the run, by site and name.",
    column("sae", pa.string(), "name of its folder"),
    column("site", pa.string(), "hook site that it reads"),
    column("architecture", pa.string(), "architecture that it was trained as"),
    column("d_sae", pa.int64(), "number of latents; null where its summary does not say", null=True),
    column(
        "k",
        pa.int64(),
        "active latents per token that it was trained for; null where its summary does not say",
        null=True,
    ),
    column("lr", pa.float64(), "peak learning rate"),
    column(
        "n_training_tokens",
        pa.int64(),
        "tokens that it was trained on, each as often as it was seen; null where its summary does not say",
        null=True,
    ),
    column(
        "split",
        pa.string(),
        "videos of the figures that follow: `held_out`, or `train` where no video is held out",
    ),
    column("fvu", pa.float64(), "fraction of variance unexplained"),
    column("l0", pa.float64(), "mean number of active latents per token"),
    column("n_dead", pa.int64(), "latents that fire at none of the evaluated tokens"),
    column("n_dense", pa.int64(), "latents that fire at more than a tenth of them"),
    column("cosine", pa.float64(), "mean cosine between residual and reconstruction"),
    column("relative_bias", pa.float64(), "mean ‖x_hat‖² / mean x·x_hat; below 1 where reconstructions shrink"),
    column(
        "decoder_coherence_mean",
        pa.float64(),
        "largest cosine, without its sign, of a decoder direction with another one: mean over latents",
    ),
    column(
        "pareto",
        pa.bool_(),
        "whether no other SAE of its site has an FVU and an L0 that are both no higher, and one of them lower",
    ),
)
COLOURS = ("#0b5fa5", "#c2410c", "#2f9e77", "#9b5fc0", "#b08a2e", "#5d6770", "#35a4a4", "#d0507a")
_WIDTH, _HEIGHT = 640, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 180, 24, 56
_GRID = "#e6e9ec"


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
    x_top, y_top = (float(table[name].max()) or 1.0 for name in ("l0", "fvu"))
    x = Scale(low=0, high=1.08 * x_top, start_px=_LEFT, stop_px=_WIDTH - _RIGHT)
    y = Scale(low=0, high=1.08 * y_top, start_px=_HEIGHT - _BOTTOM, stop_px=_TOP)
    drawing = Drawing(_WIDTH, _HEIGHT, "FVU against L0 of all SAEs of the run")
    for tick in x.ticks:
        drawing.line(x(tick), y.start_px, x(tick), y.stop_px, _GRID)
        drawing.text(x(tick), y.start_px + 18, tick_text(tick), anchor="middle")
    for tick in y.ticks:
        drawing.line(x.start_px, y(tick), x.stop_px, y(tick), _GRID)
        drawing.text(x.start_px - 8, y(tick) + 4, tick_text(tick), anchor="end")
    drawing.text((x.start_px + x.stop_px) / 2, _HEIGHT - 14, "L0 (active latents per token)", anchor="middle")
    drawing.text(_LEFT, _TOP - 8, "FVU", anchor="end")
    for _, group in table[table["pareto"]].groupby("site"):
        front = group.sort_values("l0")[["l0", "fvu"]].itertuples(index=False)
        drawing.path([(x(l0), y(fvu)) for l0, fvu in front], "#aab2ba", 1, dash="4 3")
    for number, ((site, architecture), group) in enumerate(table.groupby(["site", "architecture"], sort=True)):
        colour = COLOURS[number % len(COLOURS)]
        for row in group.to_dict("records"):
            note = f"{row['sae']}: FVU {row['fvu']:.4f}, L0 {row['l0']:.1f}, {row['n_dead']} dead ({row['split']})"
            drawing.dot(x(row["l0"]), y(row["fvu"]), 5 if row["pareto"] else 3.5, colour, note=note)
        at = _TOP + 18 * number
        drawing.dot(_WIDTH - _RIGHT + 16, at, 4, colour)
        drawing.text(_WIDTH - _RIGHT + 26, at + 4, f"{architecture} {site}")
    return drawing.file()
