"""What further analyses found of a latent, as sentences: every word follows from mechanisms.parquet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.wording import counted, interval, percent, signed, target_name
from steer.reading import TOO_FEW, UNDECIDED, Target

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
"""Sentences of a verdict."""
OPEN_QUESTIONS = {
    "dose": "How the expected count runs with its activations is undecided: without it {value}",
    "necessity": "Whether it is necessary at one event is undecided: without it there, the expected count changes by "
    "{value}",
    "sufficiency": "Whether it is sufficient in a frame without an event is undecided: its activations of an event "
    "change the count by {value}",
    "exchange": "Whether the count follows an exchange with another video is undecided: {value} per event that the "
    "other has more",
    "rivals": "Whether it {verdict} at equal norms is undecided: its effect on the count is larger by {value}",
    "reading": "Whether it decides where attention goes or what attention brings is undecided: with attention kept as "
    "it was, its ablation changes the count by {value}",
    "route": "Which tokens read its events is undecided: the cut from the events changes the count by {value}",
    "counter": "Whether a running number of events is {verdict} is undecided: the state of a video with one event more "
    "changes the count by {value}",
    "set": "Whether the questions are {verdict} is undecided: {value} of the margin on held-out videos",
}
"""Sentences where nothing is decided; the verdict may hold what is not."""


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
    start, _, statement = str(row["verdict"]).partition(": ")
    if start == UNDECIDED:
        text = OPEN_QUESTIONS[row["aspect"]].format(verdict=statement, value=shown)
    else:
        text = VERBS[row["aspect"]].format(verdict=row["verdict"], value=shown)
    return f"{text} ({videos})."
