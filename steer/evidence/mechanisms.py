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

All numbers are changes of the expected count on held-out videos, but for shares of the margin in `set`. A statement is
made where the interval speaks for it, denied where the interval excludes it, and else `undecided`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from steer.evidence.claims import LEAST_COUNT
from steer.mechanism.tables import MECHANISMS, TOO_FEW, UNDECIDED
from steer.targets import ENOUGH_VIDEOS

MOST_OF_IT = 0.75
"""Share from which one thing does most of what all together do."""
HALF_OF_IT = 0.5
LITTLE_OF_IT = 0.25
SET_SHARE = 0.8
"""Share of a subject's margin that a set must destroy or restore on the train videos to be the one that is tested."""

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
    if own and _apart(row, "ablated", "random"):
        verdict = "necessary" if own < 0 else "suppressing"
    else:
        small = max(abs(row["ablated_low"]), abs(row["ablated_high"])) < LEAST_COUNT
        verdict = "not necessary" if small else UNDECIDED
    rule = (
        f"necessary: the ablation at one event lowers the count by {LEAST_COUNT} or more, its interval below zero and "
        f"apart from that of random directions; suppressing: it raises it so; not necessary: its interval is within "
        f"{LEAST_COUNT}"
    )
    return _said(row, "necessity", verdict, rule, "ablated", row["n_videos"])


def _sufficiency(row: Row) -> dict[str, Any]:
    whole, alone = row["inserted_residual"], row["inserted_latent"]
    verdict = UNDECIDED
    if sign(row, "inserted_residual") <= 0:
        pass  # not even the whole frame makes an event
    elif sign(row, "inserted_latent") > 0:
        verdict = "sufficient" if alone >= MOST_OF_IT * whole else "sufficient in part"
    elif row["inserted_latent_high"] < MOST_OF_IT * row["inserted_residual_low"]:
        together = sign(row, "inserted_codes") > 0
        without = max(abs(row[f"inserted_others_{end}"]) for end in ("low", "high"))
        is_part = together and without < MOST_OF_IT * row["inserted_codes"]
        verdict = "part of a conjunction" if is_part else "not sufficient"
    rule = (
        "of frames whose whole residual raises the count elsewhere: sufficient if its activations alone do so by "
        f"{MOST_OF_IT:.0%} of that, sufficient in part if by less; not sufficient if their interval lies below "
        f"{MOST_OF_IT:.0%} of the lower end of that; then part of a conjunction if all latents together raise it and "
        f"the interval of all but it stays below {MOST_OF_IT:.0%} of that"
    )
    return _said(row, "sufficiency", verdict, rule, "inserted_latent", row["n_videos_with_room"])


def _exchange(row: Row) -> dict[str, Any]:
    follows = sign(row, "slope")
    verdict = "follows the partner" if follows > 0 else "goes the other way" if follows < 0 else UNDECIDED
    if not follows and row["slope_high"] <= LEAST_COUNT:
        verdict = "does not follow"
    rule = (
        f"follows: the line of the change over the difference of the counts rises by {LEAST_COUNT} or more per event, "
        f"beyond its interval; does not follow: its interval ends at {LEAST_COUNT} or before"
    )
    return _said(row, "exchange", verdict, rule, "slope", row["n_videos"])


def _rivals(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("target", sort=False):
        rows = own.to_dict("records")
        open_ones = [row for row in rows if not row["ahead_low"] > 0]
        ahead_of_it = [row for row in open_ones if row["ahead_high"] <= LEAST_COUNT]
        named = ahead_of_it or open_ones or rows
        hardest = min(named, key=lambda row: row["ahead"])
        names = [RIVALS[row["rival"]] for row in named]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        verdict = f"does {'no more' if ahead_of_it else 'more'} than {listed}"
        if open_ones and not ahead_of_it:
            verdict = f"{UNDECIDED}: {verdict}"
        rule = (
            "does more: the ablation changes the count more, video by video, than the strongest draw of each, beyond "
            f"the interval; does no more: the interval ends at {LEAST_COUNT} or before"
        )
        yield _said(hardest, "rivals", verdict, rule, "ahead", hardest["n_videos"])


def _flow(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("target", sort=False):
        n_layers = int(own["last_layer"].max()) + 1
        whole = own[(own["first_layer"] == 0) & (own["last_layer"] == n_layers - 1)].set_index("route")
        routes: dict[str, dict[str, Any]] = {str(name): row.to_dict() for name, row in whole.iterrows()}
        named = {"target": own["target"].iloc[0], "subject": own["subject"].iloc[0]}
        n = int(own["n_videos"].iloc[0])
        if sign(routes["free"], "ablation"):
            kept = routes["attention kept"]
            rule = (
                f"where attention goes: with attention kept as it was, the interval lies within {LITTLE_OF_IT:.0%} of "
                f"the ablation's mean effect; what it brings: it lies at {MOST_OF_IT:.0%} of it or beyond; both: it "
                f"lies between, or beyond {LITTLE_OF_IT:.0%} of it in the other direction"
            )
            verdict = _reading(*_share(kept, "ablation", routes["free"]["ablation"]))
            yield _said({**named, **kept}, "reading", verdict, rule, "ablation", n)
        if sign(routes["all"], "cut"):
            leading, verdict = _route(routes)
            rule = (
                "by some tokens: their cut from the events alone costs, over its whole interval, half or more of what "
                "all cuts together cost on average; by several: each cut less than half, over its whole interval; both "
                "only where the cut that is spoken of is apart from that of as many frames without an event"
            )
            yield _said({**named, **routes[leading]}, "route", verdict, rule, "cut", n)


def _share(row: Row, name: str, whole: float) -> tuple[float, float]:
    """The interval of a number as shares of another."""
    low, high = sorted((row[f"{name}_low"] / whole, row[f"{name}_high"] / whole))
    return low, high


def _reading(low: float, high: float) -> str:
    """What is decided, from the share of the ablation's effect that is left with attention kept."""
    if max(abs(low), abs(high)) <= LITTLE_OF_IT:
        return "where attention goes"
    if low >= MOST_OF_IT:
        return "what attention brings"
    if high < -LITTLE_OF_IT or (low > LITTLE_OF_IT and high < MOST_OF_IT):
        return "where attention goes and what it brings"
    return UNDECIDED


def _route(routes: Mapping[str, Row]) -> tuple[str, str]:
    """The route whose cut is spoken of, and what is said of it."""
    everything = routes["all"]["cut"]
    shares = {name: _share(routes[name], "cut", everything) for name in READERS}
    leading = max(READERS, key=lambda name: (routes[name]["cut"] / everything, name))
    if not _apart(routes["all"], "cut", "control"):
        return "all", UNDECIDED
    if shares[leading][0] >= HALF_OF_IT and _apart(routes[leading], "cut", "control"):
        return leading, READERS[leading]
    if all(high < HALF_OF_IT for _, high in shares.values()):
        return leading, "by several"
    return leading, UNDECIDED


def _apart(row: Row, one: str, other: str) -> bool:
    """Whether two intervals have nothing in common; False where one is not known."""
    return bool(row[f"{one}_high"] < row[f"{other}_low"] or row[f"{one}_low"] > row[f"{other}_high"])


def _counters(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for _, own in table.groupby("subject", sort=False):
        rows = own.to_dict("records")
        running = [row for row in rows if row["gain_low"] > 0]
        joint = rows[-1]
        if sign(joint, "state_more") > 0 and _apart(joint, "state_more", "state_same"):
            verdict = "read by the answer"
        elif sign(joint, "state_more") > 0 or joint["state_more_high"] > LEAST_COUNT:
            verdict = f"{UNDECIDED}: read by the answer"
        else:
            verdict = "follows the count, not read in one frame" if running else "none found"
        rule = (
            "read by the answer: the state of a video with one event more, put into one frame, raises the count by "
            f"{LEAST_COUNT} or more, beyond its interval and apart from that of a video with as many events; not read: "
            f"its interval ends at {LEAST_COUNT} or before; follows the count: one latent explains more than time, "
            "beyond its interval"
        )
        yield _said(joint, "counter", verdict, rule, "state_more", joint["n_more"])


def _sets(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (_, aim), own in table.groupby(["subject", "aim"], sort=False):
        rows = own.sort_values("size").to_dict("records")
        row = next((row for row in rows if row["train_share"] >= SET_SHARE), rows[-1])
        n = f"{row['size']} latent{'s' if row['size'] > 1 else ''}"
        verdict = f"more than half {DONE[aim]} by {n}"
        if row["share_high"] <= HALF_OF_IT:
            verdict = f"not {verdict}"
        elif not row["share_low"] > HALF_OF_IT:
            verdict = f"{UNDECIDED}: {verdict}"
        rule = (
            f"of the sets grown on the train videos, the smallest that {aim}s {SET_SHARE:.0%} of the margin there, or "
            f"the largest if none does; on held-out videos its interval lies above {HALF_OF_IT:.0%}, or for `not` below"
        )
        yield _said(row, "set", verdict, rule, "share", row["n_videos"])
