"""What further analyses found of a latent, as sentences: every word follows from mechanisms.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.wording import counted, interval, percent, signed, target_name
from steer.reading import TOO_FEW, Target

VERBS = {
    "dose": "With its activations, the expected count is {verdict}: without it {value}",
    "necessity": "At one event it is {verdict}: without it there, the expected count changes by {value}",
    "sufficiency": "In a frame without an event it is {verdict}: its activations of an event change the count by "
    "{value}",
    "exchange": "Exchanged with another video, the count {verdict}: {value} per event that the other has more",
    "rivals": "It {verdict} at equal norms: its effect on the count is larger by {value}",
    "reading": "It decides {verdict}: with attention kept as it was, its ablation changes the count by {value}",
    "route": "Its events are read {verdict}: cut there, the count changes by {value}",
    "counter": "A running number of events: {verdict}; the state of a video with one event more changes the count by "
    "{value}",
    "set": "The questions are {verdict}: {value} of the margin on held-out videos",
}


@dataclass(frozen=True, kw_only=True)
class MechanismLines:
    """What is said of one latent, or of one subject."""

    title: str
    lines: tuple[tuple[str, str], ...]
    """Sentences with the rules that they follow."""


def mechanism_lines(table: pd.DataFrame, targets: Mapping[str, Target]) -> list[MechanismLines]:
    """Group what is said by latent, then by subject.

    Args:
        table: mechanisms.parquet.
        targets: the targets by id.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for row in table.to_dict("records"):
        target = row["target"]
        title = f"questions about “{row['subject']}”"
        if isinstance(target, str):
            title = f"{target_name(targets[target])} on {title}"
        groups.setdefault(title, []).append((sentence(row), str(row["rule"])))
    return [MechanismLines(title=title, lines=tuple(lines)) for title, lines in groups.items()]


def sentence(row: Mapping[str, Any]) -> str:
    """A row of mechanisms.parquet as a sentence."""
    videos = counted(row["n_videos"], "video")
    if row["verdict"] == TOO_FEW:
        return f"{row['aspect'].capitalize()}: {videos} are too few to tell."
    is_share = row["aspect"] == "set"
    value = percent(row["value"]) if is_share else f"{signed(row['value'], 2)}"
    if is_share:
        between = f"[{percent(row['low'])}, {percent(row['high'])}]" if row["low"] == row["low"] else ""
    else:
        between = interval(row["low"], row["high"], 2, sign=True)
    shown = f"{value} {between}".strip()
    text = VERBS[row["aspect"]].format(verdict=row["verdict"], value=shown)
    return f"{text} ({videos})."
