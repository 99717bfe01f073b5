"""The claims of the steer stage in words, and its effects as a table of targets and subjects.

Every word follows from claims.parquet, dissociations.parquet and target_subjects.parquet; nothing is decided here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.wording import (
    action,
    change,
    counted,
    is_known,
    number,
    percent,
    probability,
    signed,
    target_name,
)
from steer.reading import CLAIM_NAMES, ENOUGH_VIDEOS, FAMILIES, Target, missed_bound

ABLATE = "ablate"
OTHERS = (("other", "other counting questions"), ("noncounting", "non-counting questions"))
"""Questions that an edit is not held against: in the names of columns, and in words."""


@dataclass(frozen=True, kw_only=True)
class ClaimLine:
    """One claim as a sentence, with the rule that it follows."""

    claim: str
    text: str
    rule: str


def claim_lines(claims: pd.DataFrame, targets: Mapping[str, Target], n: int) -> list[ClaimLine]:
    """The claims about ablations, single latents first, by claim and by the size of the effect.

    Args:
        claims: claims.parquet.
        targets: the targets by id.
        n: most lines of one claim.
    """
    found: list[ClaimLine] = []
    ablated = claims[claims["operation"] == ABLATE]
    ranked = ablated.assign(size=ablated["delta_margin"].abs()).sort_values(
        ["size", "target"], ascending=[False, True], kind="stable"
    )
    rows = sorted(ranked.to_dict("records"), key=lambda row: targets[row["target"]].is_set)
    for name in CLAIM_NAMES:
        own = [row for row in rows if row["claim"] == name]
        found += [
            ClaimLine(claim=name, text=claim_sentence(row, targets[row["target"]]), rule=row["rule"]) for row in own[:n]
        ]
    return found


def claim_sentence(row: Mapping[str, Any], target: Target) -> str:
    """A row of claims.parquet as a sentence."""
    matched = f"the margin of “{row['subject']}” questions"
    size = change(row, "delta_margin", "\u00a0nats")
    videos = counted(row["n_videos"], "video")
    who = f"{action(row['operation'])} {target_name(target)}"
    others = "; ".join(_others(row, *names) for names in OTHERS)
    beside = f"; of single subjects most “{row['beside_subject']}” questions, {signed(row['delta_margin_beside'], 2)}"
    others += beside if isinstance(row["beside_subject"], str) else ""
    changes = f"{who} changes {matched} by {size} ({videos}, q\u00a0{_q(row['q_value'])}"
    against = f"{row['n_controls']} controls q\u00a0{_q(row['control_q_value'])}"
    match row["claim"]:
        case "specific":
            text = f"{changes}, against {against}), others that were asked by a quarter of it at most: {others}."
        case "not specific":
            text = f"{changes}, against {against}); some others change by more than a quarter of it, or may: {others}."
        case "specificity not tested":
            text = f"{changes}, against {against}); whether it changes others was not tested: {others}."
        case "generic damage":
            text = f"{changes}), but directions of its size do as much (against {against}): {others}."
        case "not beyond controls":
            text = f"{changes}), but some directions of its size do as much (against {against}): {others}."
        case "too few controls":
            text = (
                f"{changes}), and none of {row['n_controls']} directions of its size does as much. They are too few to "
                f"tell (q\u00a0{_q(row['control_q_value'])}): it takes {row['controls_needed']:.0f} at least, with "
                f"--controls {per_family(row['controls_needed'])}. {others[0].upper()}{others[1:]}."
            )
        case "no controls":
            text = f"{changes}); it was not compared with controls."
        case "undecided":
            text = f"{changes}): the interval leaves out zero, but the test over videos does not decide."
        case "no effect on the margin":
            limit = f"±{number(row['bound'], 2 if row['bound'] >= 0.01 else 4)}\u00a0nats"
            text = (
                f"{who}: no effect on {matched} was found ({videos}, {size}). One of {limit} or more would have been "
                "found at least four times in five, by a test at 5\u00a0% of this edit alone."
            )
            return text + (_count_sentence(row) if row["direction"] != "undecided" else "")
        case _:
            active = counted(row["n_videos_active"], "video")
            if row["n_videos_active"] >= ENOUGH_VIDEOS:
                active += f", of which fewer than {ENOUGH_VIDEOS} change at all,"
            return f"{who}: {active} with “{row['subject']}” questions are too few to tell."
    return text + _count_sentence(row)


def per_family(n_controls: Any) -> int:
    """What to give as --controls for at least so many, which come from several families."""
    return math.ceil(n_controls / len(FAMILIES))


def _others(row: Mapping[str, Any], name: str, questions: str) -> str:
    """The change of questions that an edit is not held against."""
    if not is_known(row[f"delta_margin_{name}"]):
        return f"no {questions} were asked"
    one = "" if is_known(row[f"delta_margin_{name}_low"]) else " in one video"
    return f"{questions} {change(row, f'delta_margin_{name}')}{one}"


def _count_sentence(row: Mapping[str, Any]) -> str:
    if row["direction"] == "undecided":
        return " Where the count goes is undecided."
    text = f" The expected count gets {row['direction']}: {change(row, 'delta_expected_count')}"
    opposed = row["opposed"]
    if opposed is None or opposed != opposed:
        return text + "."
    return text + (", and the opposite edit moves it the other way." if opposed else "; the opposite edit does not.")


def _q(value: Any) -> str:
    shown = probability(value)
    return shown if shown.startswith("<") else f"= {shown}"


@dataclass(frozen=True, kw_only=True)
class SubjectTable:
    """Effects of ablations on every subject's questions."""

    subjects: tuple[str, ...]
    rows: tuple[tuple[Target, tuple[dict[str, Any] | None, ...]], ...]
    """Each target with its rows of target_subjects.parquet, one per subject; None where there is none."""


def subject_table(
    by_subject: pd.DataFrame, claims: pd.DataFrame, targets: Mapping[str, Target], n: int
) -> SubjectTable | None:
    """The specific single latents against the subjects that any target was chosen for; None where none is specific.

    Args:
        by_subject: target_subjects.parquet.
        claims: claims.parquet.
        targets: the targets by id.
        n: most latents of one subject.
    """
    own = claims[(claims["operation"] == ABLATE) & (claims["claim"] == "specific")]
    own = own[own["target"].map(lambda name: not targets[name].is_set).astype(bool)]
    own = own.assign(size=own["delta_margin"].abs()).sort_values(
        ["subject", "size", "target"], ascending=[True, False, True], kind="stable"
    )
    shown = [str(name) for name in own.groupby("subject", sort=False).head(n)["target"]]
    if not shown:
        return None
    subjects = tuple(sorted({target.subject for target in targets.values()}))
    ablated = by_subject[by_subject["operation"] == ABLATE]
    cells = {(row["target"], row["subject"]): row for row in ablated.to_dict("records")}
    return SubjectTable(
        subjects=subjects,
        rows=tuple((targets[name], tuple(cells.get((name, subject)) for subject in subjects)) for name in shown),
    )


def dissociation_lines(pairs: pd.DataFrame, targets: Mapping[str, Target], n: int) -> list[str]:
    """Double dissociations as sentences, in the order of the table."""
    return [
        f"{target_name(targets[row['one']])} moves “{row['one_subject']}” questions by {signed(row['one_on_one'], 2)} "
        f"and “{row['other_subject']}” questions by {signed(row['one_on_other'], 2)}; "
        f"{target_name(targets[row['other']])} moves the latter by {signed(row['other_on_other'], 2)} and the former "
        f"by {signed(row['other_on_one'], 2)}."
        for row in pairs.head(n).to_dict("records")
    ]


def screen_agreement(by_latent: pd.DataFrame, screens: pd.DataFrame) -> str:
    """How far the sweep of the train videos went, and how far its screens can be trusted; empty for a few latents.

    Args:
        by_latent: latent_subjects.parquet.
        screens: screens.parquet.
    """
    subjects = by_latent[by_latent["scope"] == "subject"]
    n_exact = subjects.loc[subjects["method"] == "exact", "latent"].nunique()
    compared = screens[screens["n_top"] > 0]
    if n_exact < 4 or not len(compared):
        return ""
    parts = [
        f"{name} {percent(_pooled(own, own['recall_top']))} (at random "
        f"{percent(_pooled(own, own['n_top'] / own['n_exact']))})"
        for name, own in compared.groupby("screen", sort=True)
    ]
    fewest, most = (f"{int(end):,}" for end in (compared["n_exact"].min(), compared["n_exact"].max()))
    start = (
        f"On the train videos {n_exact:,} of {counted(subjects['latent'].nunique(), 'active latent')} were ablated "
        f"exactly, the leaders of the screens. Among those that were in all videos of a subject "
        f"({fewest if fewest == most else f'{fewest} to {most}'} latents), the screens had of its largest exact "
        f"effects (20 at most) among as many largest estimates: {', '.join(parts)}."
    )
    # What is left out of a subject is the same for every screen.
    left_out = screens.drop_duplicates("subject")[["n_missed", "n_drawn", "n_rest"]].sum()
    n_missed, n_drawn, n_rest = (int(each) for each in left_out)
    if not n_drawn:
        return start
    return (
        f"{start} Of {counted(n_rest, 'other effect')} of one latent on the questions about one subject in one video, "
        f"{n_drawn:,} were drawn at random and run too: {n_missed:,} exceeded 0.1 nats, so that at most "
        f"{number(100 * missed_bound(n_missed, n_drawn, n_rest), 1)}\u00a0% of all do (95 %)."
    )


def _pooled(screens: pd.DataFrame, share: pd.Series) -> float:
    """A share of the largest effects over several subjects."""
    return float((share * screens["n_top"]).sum() / screens["n_top"].sum())


def claim_counts(claims: pd.DataFrame) -> list[tuple[str, int]]:
    """How many edits have each claim, those without any left out."""
    return [(name, int((claims["claim"] == name).sum())) for name in CLAIM_NAMES if (claims["claim"] == name).any()]
