"""The claims of the steer stage in words, and its effects as a table of targets and subjects.

Every word follows from claims.parquet, dissociations.parquet and target_subjects.parquet; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.wording import action, counted, interval, number, percent, probability, signed, target_name
from steer.reading import CLAIM_NAMES, Target, missed_bound

ABLATE = "ablate"


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
    size = (
        f"{signed(row['delta_margin'], 2)}\u00a0nats "
        f"{interval(row['delta_margin_low'], row['delta_margin_high'], 2, sign=True)}"
    )
    videos = counted(row["n_videos"], "video")
    who = f"{action(row['operation'])} {target_name(target)}"
    others = "; ".join(
        f"{of} {signed(row[f'delta_margin_{name}'], 2)} "
        f"{interval(row[f'delta_margin_{name}_low'], row[f'delta_margin_{name}_high'], 2, sign=True)}"
        for of, name in (("other counting questions", "other"), ("non-counting questions", "noncounting"))
    )
    changes = f"{who} changes {matched} by {size} ({videos}, q\u00a0{_q(row['q_value'])}"
    against = f"{row['n_controls']} controls q\u00a0{_q(row['control_q_value'])}"
    match row["claim"]:
        case "specific":
            text = f"{changes}, against {against}), and no others: {others}."
        case "not specific":
            beside = f"“{row['beside_subject']}” questions {signed(row['delta_margin_beside'], 2)}"
            most = f"; among them {beside}" if isinstance(row["beside_subject"], str) else ""
            text = f"{changes}, against {against}), but not these alone: {others}{most}."
        case "generic damage":
            text = f"{changes}), but directions of its size do as much (against {against}): {others}."
        case "not beyond controls":
            text = f"{changes}), but some directions of its size do as much (against {against}): {others}."
        case "no controls":
            text = f"{changes}); it was not compared with controls."
        case "undecided":
            text = f"{changes}): the interval leaves out zero, but the test over videos does not decide."
        case "no effect":
            limit = f"±{number(row['bound'], 2 if row['bound'] >= 0.01 else 4)}\u00a0nats"
            return f"{who}: no effect on {matched} beyond {limit}; {videos} could have found it."
        case _:
            active = counted(row["n_videos_active"], "video")
            return f"{who}: {active} with “{row['subject']}” questions are too few to tell."
    return text + _count_sentence(row)


def _count_sentence(row: Mapping[str, Any]) -> str:
    if row["direction"] == "undecided":
        return " Where the count goes is undecided."
    text = (
        f" The expected count gets {row['direction']}: {signed(row['delta_expected_count'], 2)} "
        f"{interval(row['delta_expected_count_low'], row['delta_expected_count_high'], 2, sign=True)}"
    )
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
        f"{target_name(targets[row['one']])} moves “{row['one_subject']}” questions "
        f"({signed(row['one_on_one'], 2)}) and not “{row['other_subject']}” questions "
        f"({signed(row['one_on_other'], 2)}); {target_name(targets[row['other']])} moves the latter "
        f"({signed(row['other_on_other'], 2)}) and not the former ({signed(row['other_on_one'], 2)})."
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
        f"{name} {percent((own['recall_top'] * own['n_top']).sum() / own['n_top'].sum())}"
        for name, own in compared.groupby("screen", sort=True)
    ]
    start = (
        f"On the train videos {n_exact:,} of {counted(subjects['latent'].nunique(), 'active latent')} were ablated "
        f"exactly, the leaders of the screens. Of the largest exact effects on each subject (20 at most) the screens "
        f"had among their own leaders: {', '.join(parts)}."
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


def claim_counts(claims: pd.DataFrame) -> list[tuple[str, int]]:
    """How many edits have each claim, those without any left out."""
    return [(name, int((claims["claim"] == name).sum())) for name in CLAIM_NAMES if (claims["claim"] == name).any()]
