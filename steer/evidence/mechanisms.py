"""What the further analyses allow to say of a latent, by stated rules: one function, whose words every page prints.

    dose        how the expected count runs with the latent
    necessity   what is lost without it at one event
    sufficiency what it brings about in a frame without an event
    exchange    whether the count follows that of the video whose activations it takes
    rivals      whether it does more than directions made without an SAE
    reading     whether it decides where attention goes, or what attention brings along
    route       which tokens read its events
    counter     whether latents keep a running number of events, and whether the answer reads it
    set         how few latents destroy or restore the questions of a subject

All numbers are changes of the expected count on held-out videos, but for shares of the margin in `set`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from steer.evidence.claims import LEAST_COUNT
from steer.mechanism.tables import MECHANISMS, TOO_FEW
from steer.targets import ENOUGH_VIDEOS

MOST_OF_IT = 0.75
"""Share from which one thing does most of what all together do."""
LITTLE_OF_IT = 0.25
SET_SHARE = 0.8
"""Share of a subject's margin that a set must destroy or restore on the train videos."""

READERS = {
    "later visual": "by later visual tokens",
    "question": "by the question's tokens",
    "answer": "by the last token",
}
RIVALS = {
    "count difference": "the difference between counts",
    "mean shift": "the mean shift of the text",
    "moved": "itself on other tokens",
}
DONE = {"destroy": "destroyed", "restore": "restored"}

Row = Mapping[str, Any]


def mechanisms(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return mechanisms.parquet.

    Args:
        tables: doses, swap_summary, event_summary, sets, counters and flow.parquet by name; any may have no rows.
    """
    found = [
        *_doses(tables["doses"]),
        *(row for each in _rows(tables["event_summary"]) for row in (_necessity(each), _sufficiency(each))),
        *(_exchange(each) for each in _rows(tables["swap_summary"])),
        *_rivals(tables["rivals"]),
        *_flow(tables["flow"]),
        *_counters(tables["counters"]),
        *_sets(tables["sets"]),
    ]
    return pd.DataFrame(found, columns=MECHANISMS.names)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _said(row: Row, aspect: str, verdict: str, rule: str, name: str, n: int) -> dict[str, Any]:
    """A row of mechanisms.parquet; `name` is the column of its number and interval.

    With fewer videos than a sign-flip test needs, nothing is said.
    """
    return {
        "target": row.get("target"),
        "subject": row["subject"],
        "aspect": aspect,
        "verdict": verdict if n >= ENOUGH_VIDEOS else TOO_FEW,
        "rule": f"{rule}; with fewer than {ENOUGH_VIDEOS} videos nothing is said",
        "value": row[name],
        "low": row[f"{name}_low"],
        "high": row[f"{name}_high"],
        "n_videos": n,
    }


def sign(row: Row, name: str) -> int:
    """1 or -1 where a number is `LEAST_COUNT` or more in size, and its interval on one side of zero; else 0."""
    if not abs(row[name]) >= LEAST_COUNT:
        return 0
    return int(row[f"{name}_low"] > 0) - int(row[f"{name}_high"] < 0)


def _doses(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    rule = (
        "rising or falling: the largest dose against none lies beyond its interval, and no step goes back beyond its "
        "own; not monotone: one step rises and another falls, each beyond its own"
    )
    for _, own in table.groupby("target", sort=False):
        none = own.sort_values("dose").to_dict("records")[0]
        yield _said(none, "dose", none["shape"], rule, "delta_expected_count", none["n_videos"])


def _necessity(row: Row) -> dict[str, Any]:
    own = sign(row, "ablated")
    beyond = row["ablated_high"] < row["random_low"] or row["ablated_low"] > row["random_high"]
    if own and beyond:
        verdict = "necessary" if own < 0 else "suppressing"
    else:
        small = max(abs(row["ablated_low"]), abs(row["ablated_high"])) < LEAST_COUNT
        verdict = "not necessary" if small else "undecided"
    rule = (
        f"necessary: the ablation at one event lowers the count by {LEAST_COUNT} or more, its interval below zero and "
        f"apart from that of random directions; suppressing: it raises it so; not necessary: its interval is within "
        f"{LEAST_COUNT}"
    )
    return _said(row, "necessity", verdict, rule, "ablated", row["n_videos"])


def _sufficiency(row: Row) -> dict[str, Any]:
    whole, alone = row["inserted_residual"], row["inserted_latent"]
    if sign(row, "inserted_residual") <= 0:
        verdict = "undecided"  # not even the whole frame makes an event
    elif sign(row, "inserted_latent") > 0:
        verdict = "sufficient" if alone >= MOST_OF_IT * whole else "sufficient in part"
    elif sign(row, "inserted_codes") > 0 and abs(row["inserted_others"]) < MOST_OF_IT * row["inserted_codes"]:
        verdict = "part of a conjunction"
    else:
        verdict = "not sufficient"
    rule = (
        "of frames whose whole residual raises the count elsewhere: sufficient if its activations alone do so by "
        f"{MOST_OF_IT:.0%} of that, sufficient in part if by less; part of a conjunction if they do not, all latents "
        f"together do, and all but it do by less than {MOST_OF_IT:.0%} of that; else not sufficient"
    )
    return _said(row, "sufficiency", verdict, rule, "inserted_latent", row["n_videos_with_room"])


def _exchange(row: Row) -> dict[str, Any]:
    follows = sign(row, "slope")
    verdict = "follows the partner" if follows > 0 else "goes the other way" if follows < 0 else "does not follow"
    rule = (
        f"the line of the change over the difference of the counts rises by {LEAST_COUNT} or more per event, beyond "
        "its interval"
    )
    return _said(row, "exchange", verdict, rule, "slope", row["n_videos"])


def _rivals(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("target", sort=False):
        rows = own.to_dict("records")
        hardest = min(rows, key=lambda row: row["ahead"])
        behind = [row for row in rows if not row["ahead_low"] > 0]
        names = [RIVALS[row["rival"]] for row in behind or rows]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        verdict = f"does {'no more' if behind else 'more'} than {listed}"
        rule = "the ablation changes the count more, video by video, than the strongest draw, beyond the interval"
        yield _said(hardest, "rivals", verdict, rule, "ahead", hardest["n_videos"])


def _flow(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("target", sort=False):
        n_layers = int(own["last_layer"].max()) + 1
        whole = own[(own["first_layer"] == 0) & (own["last_layer"] == n_layers - 1)].set_index("route")
        free, kept, everything = (whole.loc[name].to_dict() for name in ("free", "attention kept", "all"))
        named = {"target": own["target"].iloc[0], "subject": own["subject"].iloc[0]}
        n = int(own["n_videos"].iloc[0])
        if sign(free, "ablation"):
            share = kept["ablation"] / free["ablation"]
            words = ("where attention goes", "where attention goes and what it brings", "what attention brings")
            verdict = words[0] if share <= LITTLE_OF_IT else words[2] if share >= MOST_OF_IT else words[1]
            rule = (
                f"where attention goes: with attention kept as it was, {LITTLE_OF_IT:.0%} of the ablation's effect or "
                f"less is left; what it brings: {MOST_OF_IT:.0%} or more; else both"
            )
            yield _said({**named, **kept}, "reading", verdict, rule, "ablation", n)
        if sign(everything, "cut"):
            sizes = {
                name: whole.loc[name, "cut"] / everything["cut"] for name in ("later visual", "question", "answer")
            }
            leading = max(sizes, key=lambda name: (sizes[name], name))
            verdict = READERS[leading] if sizes[leading] >= 0.5 else "by several"
            rule = "the tokens whose cut from the events alone costs half or more of what all cuts together cost"
            yield _said({**named, **whole.loc[leading].to_dict()}, "route", verdict, rule, "cut", n)


def _counters(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("subject", sort=False):
        rows = own.to_dict("records")
        running = [row for row in rows if row["gain_low"] > 0]
        joint = rows[-1]
        if sign(joint, "state_more") > 0:
            verdict = "read by the answer"
        else:
            verdict = "follows the count, not read in one frame" if running else "none found"
        rule = (
            "read by the answer: the state of a video with one event more, put into one frame, raises the count by "
            f"{LEAST_COUNT} or more, beyond its interval; follows the count: it explains more than time beyond its "
            "interval"
        )
        yield _said(joint, "counter", verdict, rule, "state_more", joint["n_more"])


def _sets(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (_, aim), own in table.groupby(["subject", "aim"], sort=False):
        rows = own.sort_values("size").to_dict("records")
        enough = next((row for row in rows if row["train_share"] >= SET_SHARE), None)
        row = enough or rows[-1]
        n = f"{row['size']} latent{'s' if row['size'] > 1 else ''}"
        verdict = f"{DONE[aim]} by {n}" if enough else f"not {DONE[aim]} by {n}"
        rule = f"the smallest set, grown on the train videos, that {aim}s {SET_SHARE:.0%} of the margin there"
        yield _said(row, "set", verdict, rule, "share", row["n_videos"])
