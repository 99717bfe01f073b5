"""What the held-out effects allow to say: one function, with stated rules, whose words every page prints.

    specific         moves its subject's questions, more than its controls; other counting questions, taken together and
                     subject by subject, and non-counting questions move by a small share of that at most
    not specific     moves its subject's questions more than its controls, but others move too, or may
    specificity not tested
                     moves its subject's questions more than its controls; of others too few were asked to compare
    generic damage   costs its subject's questions, and so does many a control of its norms
    not beyond controls
                     moves its subject's questions, but a control of its norms now and then does as much
    too few controls moves its subject's questions and no control does as much, but there are too few of them to tell
    no effect on the margin
                     none was found; how large one has to be for the test to find it is stated
    undecided        the interval leaves out zero, and the test over videos does not
    too few videos   so few videos have such questions and an effect that none could have been found
    no controls      it was not compared

Targets and their subjects are chosen on train videos, so that nothing here is the best of several on held-out ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from steer.edits.operations import Operation
from steer.evidence.summary import SIGNIFICANT_Q
from steer.tables import CLAIMS, DISSOCIATIONS
from steer.targets import ENOUGH_VIDEOS, OTHERS_SHARE, Target

LEAST_COUNT = 0.05
"""Change of the expected count from which its direction is told."""

MANY_CONTROLS = 0.2
"""Share of the controls that change the margin as much, from which the cost is that of any change of this size."""

_OF_DOSES = Operation(kind="ablate").magnitude
"""Of the edits that doses.parquet compares in `opposed`: without the latent, and with twice of it."""
_CONFIRMED = f"q < {SIGNIFICANT_Q} over videos and q < {SIGNIFICANT_Q} against controls"
RULES = {
    "specific": f"{_CONFIRMED}; intervals of other and non-counting questions, of which at least one is known, and the "
    f"mean of every other subject with {ENOUGH_VIDEOS} videos or more, within {OTHERS_SHARE:.0%} of the effect",
    "not specific": f"{_CONFIRMED}; the mean or an end of the interval of other or non-counting questions, or another "
    f"subject's mean, beyond {OTHERS_SHARE:.0%} of the effect",
    "specificity not tested": f"{_CONFIRMED}; neither other counting nor non-counting questions about two videos or "
    "more were asked",
    "generic damage": f"q < {SIGNIFICANT_Q} over videos, q >= {SIGNIFICANT_Q} against controls; the margin falls, and "
    f"{MANY_CONTROLS:.0%} of the controls or more change it as much",
    "not beyond controls": f"q < {SIGNIFICANT_Q} over videos, q >= {SIGNIFICANT_Q} against controls; fewer of them do, "
    "or the margin rises",
    "too few controls": f"q < {SIGNIFICANT_Q} over videos, q >= {SIGNIFICANT_Q} against controls, although none of "
    "them changes the margin as much",
    "no effect on the margin": f"q >= {SIGNIFICANT_Q} over videos, zero in the interval, {ENOUGH_VIDEOS} videos or "
    "more with an effect",
    "undecided": f"q >= {SIGNIFICANT_Q} over videos, zero outside the interval, {ENOUGH_VIDEOS} videos or more with an "
    "effect",
    "too few videos": f"q >= {SIGNIFICANT_Q} over videos, fewer than {ENOUGH_VIDEOS} videos with an effect",
    "no controls": "no controls were run",
}


def claims(
    summary: pd.DataFrame, by_subject: pd.DataFrame, operations: Sequence[Operation], doses: pd.DataFrame
) -> pd.DataFrame:
    """Return claims.parquet.

    Args:
        summary: summary.parquet.
        by_subject: target_subjects.parquet.
        operations: those of the summary.
        doses: doses.parquet; may have no rows.
    """
    known = {str(operation): operation for operation in operations}
    by_doses = dict(zip(doses["target"], doses["opposed"], strict=True))
    others = by_subject[~by_subject["is_chosen"].astype(bool) & (by_subject["n_videos"] >= ENOUGH_VIDEOS)]
    others = others.assign(size=others["delta_margin"].abs()).sort_values("size", ascending=False, kind="stable")
    largest = others.drop_duplicates(["target", "operation"]).to_dict("records")
    beside = {(row["target"], row["operation"]): (row["subject"], row["delta_margin"]) for row in largest}
    rows = summary.to_dict("records")
    families: dict[str, list[float]] = {}
    for row in rows:
        row["beside_subject"], row["delta_margin_beside"] = beside.get(
            (row["target"], row["operation"]), (None, float("nan"))
        )
        if pd.notna(row["control_p_value"]):
            families.setdefault(row["family"], []).append(row["control_p_value"])
    found: list[dict[str, Any]] = []
    for row in rows:
        judged = _claim(row)
        if judged["claim"] == "too few controls":
            judged["controls_needed"] = controls_needed(row["control_p_value"], families[row["family"]])
        # Doses compare the ablation with the doubling, and nothing else.
        if row["target"] in by_doses and known[row["operation"]].magnitude == _OF_DOSES:
            judged["opposed"] = by_doses[row["target"]]
        else:
            judged["opposed"] = _opposed(row, rows, known)
        found.append(judged)
    return pd.DataFrame(found, columns=CLAIMS.names)


def claim_name(row: dict[str, Any]) -> str:
    """Which claim a row of summary.parquet supports, `delta_margin_beside` in it; the rules are `RULES`."""
    moves = _below(row["q_value"])
    if moves and row["n_controls"] == 0:
        return "no controls"
    if moves and not _below(row["control_q_value"]):
        if row["control_p_value"] * (1 + row["n_controls"]) < 1.5:  # 1 where no control does as much
            return "too few controls"
        is_damage = row["delta_margin"] < 0 and row["control_p_value"] >= MANY_CONTROLS
        return "generic damage" if is_damage else "not beyond controls"
    if moves:
        if not others_within(row):
            return "not specific"
        return "specific" if any(others_known(row)) else "specificity not tested"
    # Where fewer videos have an effect than the test takes, none is detectable.
    if row["n_videos_active"] < ENOUGH_VIDEOS or not pd.notna(row["detectable"]):
        return "too few videos"
    return "no effect on the margin" if row["delta_margin_low"] <= 0 <= row["delta_margin_high"] else "undecided"


def others_known(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether enough videos had other counting questions, and non-counting questions, for an interval."""
    other, noncounting = (pd.notna(row[f"delta_margin_{of}_low"]) for of in ("other", "noncounting"))
    return other, noncounting


def others_within(row: dict[str, Any]) -> bool:
    """Whether all that is known of other counting questions, subjects and non-counting questions is a small share.

    What was not asked is not known and has no say; see `others_known`.
    """
    limit = OTHERS_SHARE * abs(row["delta_margin"])
    ends = [row[f"delta_margin_{of}{end}"] for of in ("other", "noncounting") for end in ("", "_low", "_high")]
    return all(abs(end) <= limit for end in (*ends, row["delta_margin_beside"]) if pd.notna(end))


def controls_needed(p_value: float, family: Sequence[float]) -> int:
    """Fewest controls of each row in a family that allow a q-value below `SIGNIFICANT_Q` where none does as much.

    Args:
        p_value: of the row against its controls, none of which does as much.
        family: p-values against controls of all rows of its family, this one among them.
    """
    ahead = sum(each <= p_value for each in family)
    # Benjamini-Hochberg: q = family / ahead / (1 + n), which must be below the level.
    return math.floor(len(family) / ahead / SIGNIFICANT_Q + 1e-9)


def direction(row: dict[str, Any]) -> str:
    """Where the expected count of the matched questions goes, beyond its interval and by no less than `LEAST_COUNT`."""
    if not abs(row["delta_expected_count"]) >= LEAST_COUNT:
        return "undecided"
    if row["delta_expected_count_high"] < 0:
        return "lower"
    return "higher" if row["delta_expected_count_low"] > 0 else "undecided"


def dissociations(claimed: pd.DataFrame, by_subject: pd.DataFrame, targets: Sequence[Target]) -> pd.DataFrame:
    """Return dissociations.parquet: pairs of specific single latents of which neither moves the other's questions.

    Args:
        claimed: claims.parquet.
        by_subject: target_subjects.parquet.
        targets: what was edited.
    """
    single = {target.id: target.latents for target in targets if not target.is_set}
    rows = [
        row
        for row in claimed.to_dict("records")
        if row["operation"] == "ablate" and row["target"] in single and row["claim"] == "specific"
    ]
    rows.sort(key=lambda row: (-abs(row["delta_margin"]), row["target"]))
    ablated = by_subject[by_subject["operation"] == "ablate"]
    effect = {
        (target, subject): (mean, max(abs(low), abs(high)))
        for target, subject, mean, low, high in zip(
            *(ablated[name] for name in ("target", "subject", "delta_margin", "delta_margin_low", "delta_margin_high")),
            strict=True,
        )
    }
    found: list[dict[str, Any]] = []
    for place, one in enumerate(rows):
        for other in rows[place + 1 :]:
            if one["subject"] == other["subject"] or single[one["target"]] == single[other["target"]]:
                continue
            across, back = effect[one["target"], other["subject"]], effect[other["target"], one["subject"]]
            limits = [OTHERS_SHARE * abs(row["delta_margin"]) for row in (one, other)]
            if not (across[1] <= limits[0] and back[1] <= limits[1]):  # an unknown interval shows nothing
                continue
            found.append(
                {
                    "one": one["target"],
                    "one_subject": one["subject"],
                    "other": other["target"],
                    "other_subject": other["subject"],
                    "one_on_one": one["delta_margin"],
                    "one_on_other": across[0],
                    "other_on_one": back[0],
                    "other_on_other": other["delta_margin"],
                }
            )
    return pd.DataFrame(found, columns=DISSOCIATIONS.names)


def _claim(row: dict[str, Any]) -> dict[str, Any]:
    name = claim_name(row)
    ends = [abs(row[end]) for end in ("delta_margin_low", "delta_margin_high", "detectable") if pd.notna(row[end])]
    kept = {column: row[column] for column in CLAIMS.names if column in row}
    return kept | {
        "claim": name,
        "rule": RULES[name],
        "direction": direction(row),
        "bound": max(ends, default=float("nan")),
    }


def _opposed(row: dict[str, Any], rows: list[dict[str, Any]], operations: Mapping[str, Operation]) -> bool | None:
    """Whether the target's opposite operation moves the expected count the other way; None where there is none."""
    own = operations[row["operation"]]
    opposite = [
        each
        for each in rows
        if each["target"] == row["target"]
        and operations[each["operation"]].scope == own.scope
        and operations[each["operation"]].sign == -own.sign != 0
    ]
    if not opposite:
        return None
    pairs = {("lower", "higher"), ("higher", "lower")}
    return any((direction(row), direction(each)) in pairs for each in opposite)


def _below(q: float) -> bool:
    return bool(q == q and q < SIGNIFICANT_Q)
