"""What the tables of a run say, in plain sentences: the verdicts at the top of the report, and its selections of rows.

A verdict follows from the numbers alone, and a negative one is worded as plainly as a positive one. Pure functions of
tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from report.wording import counted, interval, is_known, number, percent, probability
from steer.reading import SIGNIFICANT_Q

OBJECT_AUROC = 0.9
"""Held-out AUROC from which a latent is said to follow an object or attribute."""
ALL_COUNTING = "all counting"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer to one question about the run."""

    question: str
    answer: Literal["yes", "partly", "no", "undecided", "unknown"]
    """`undecided`: it was measured, and the numbers do not decide; `unknown`: it was not measured."""
    headline: str
    """Half a sentence, without a capital letter or a full stop."""
    text: str


# --- The model's answers ---------------------------------------------------------------------------------------------


def accuracies(baselines: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of baselines.parquet for the held-out videos; without any, those for the train videos."""
    split = "held_out" if (baselines["split"] == "held_out").any() else "train"
    return baselines[baselines["split"] == split].to_dict("records")


def answer_verdict(rows: Sequence[dict[str, Any]]) -> Verdict:
    """Does the model answer counting questions better than a guess without the video?"""
    question = "Does the model count?"
    total = next((row for row in rows if row["kind"] == ALL_COUNTING), None)
    if total is None:
        return Verdict(
            question=question,
            answer="unknown",
            headline="the model's answers were not measured",
            text="There are no answers of the steer stage.",
        )
    better = total["accuracy_low"] > total["best_baseline"]
    worst = min(
        (row for row in rows if row["counting"] and row is not total), key=lambda row: row["accuracy"], default=total
    )
    text = (
        f"It answers {percent(total['accuracy'])} of {counted(total['n_items'], 'counting question')} about "
        f"{counted(total['n_videos'], 'video')} of the {split_name(total['split'])} split (95\u00a0% interval "
        f"{percent(total['accuracy_low'])} to {percent(total['accuracy_high'])}); the best answer without the video "
        f"scores {percent(total['best_baseline'])}. Its weakest kind is {worst['kind']}, with "
        f"{percent(worst['accuracy'])}."
    )
    headline = "the model counts better" if better else "the model does not reliably count better"
    return Verdict(
        question=question,
        answer="yes" if better else "no",
        headline=f"{headline} than a guess without the video",
        text=text,
    )


def split_name(split: str) -> str:
    """How a split is written on the page."""
    return split.replace("_", "-")


# --- What latents go with --------------------------------------------------------------------------------------


def top_association(associations: pd.DataFrame, row: dict[str, Any]) -> dict[str, Any] | None:
    """The held-out row of a latent's best label; None if it has none.

    Args:
        associations: associations.parquet.
        row: the latent's row of catalogue.parquet.
    """
    found = associations[
        (associations["split"] == "held_out")
        & (associations["latent"] == row["latent"])
        & (associations["label"] == row["top_label"])
        & (associations["kind"] == row["top_label_kind"])
        & (associations["level"] == row["top_label_level"])
    ]
    return found.to_dict("records")[0] if len(found) else None


def object_latents(catalogue: pd.DataFrame) -> pd.DataFrame:
    """Latents whose name is an object or an attribute of objects, the highest held-out AUROC first."""
    rows = catalogue[catalogue["labelled"].astype(bool) & (catalogue["top_label_kind"] == "object")]
    return rows.sort_values(["top_auroc", "latent"], ascending=[False, True], kind="stable")


def object_verdict(
    catalogue: pd.DataFrame | None, associations: pd.DataFrame | None, fdr: float = SIGNIFICANT_Q
) -> Verdict:
    """Does a latent follow one object, or one attribute such as a colour, on held-out videos?

    Args:
        catalogue: catalogue.parquet; None without the features stage.
        associations: associations.parquet.
        fdr: the run's false discovery rate.
    """
    question = "Does a latent follow one object or attribute?"
    if catalogue is None or associations is None:
        return Verdict(
            question=question,
            answer="unknown",
            headline="latents were not compared with annotations",
            text="The features stage is not finished.",
        )
    held = object_latents(catalogue)
    clear = held[held["top_auroc"] >= OBJECT_AUROC]
    if len(held) == 0:
        tested = associations[(associations["split"] == "held_out") & (associations["kind"] == "object")]
        tested = tested.sort_values(["auroc", "latent"], ascending=[False, True], kind="stable")
        if not len(tested):
            return Verdict(
                question=question,
                answer="unknown",
                headline="no latent was compared with an object or attribute",
                text="No pair of a latent and an object was tested: none is shown by enough videos of both splits.",
            )
        row = tested.to_dict("records")[0]
        return Verdict(
            question=question,
            answer="no",
            headline="no latent was found to follow one object or attribute",
            text=f"None of {counted(len(tested), 'tested pair')} of a latent and an object or attribute is the "
            f"latent’s name. The highest AUROC, {number(row['auroc'])} for latent {row['latent']} and "
            f"“{row['label']}”, does not count: {why_not(row, fdr)}.",
        )
    row = held.to_dict("records")[0]
    pair = top_association(associations, row)
    best = (
        f"latent {row['latent']}, which fires on “{row['top_label']}”: held-out AUROC {number(row['top_auroc'])} "
        f"{interval(pair['auroc_low'], pair['auroc_high']) if pair else ''}, "
        f"{number(row['top_within_video_auroc'])} within a video, where 95\u00a0% of its controls stay below "
        f"{number(row['top_control_auroc_p95'])}."
    )
    if len(clear) == 0:
        return Verdict(
            question=question,
            answer="partly",
            headline=f"no latent follows one object or attribute with a held-out AUROC of {OBJECT_AUROC} or more",
            text=f"{counted(len(held), 'latent')} {'has' if len(held) == 1 else 'have'} the name of an object or "
            f"attribute, but none reaches {OBJECT_AUROC}. The best is {best}",
        )
    verb = "follows" if len(clear) == 1 else "follow"
    names = clear["top_label"].nunique()
    several = (
        f"{counted(len(clear), 'latent')} for {counted(names, 'name')} of objects or of attributes, such as a colour. "
        f"The clearest is {best}"
    )
    return Verdict(
        question=question,
        answer="yes",
        headline=f"{counted(len(clear), 'latent')} {verb} one object or attribute with a held-out AUROC of "
        f"{OBJECT_AUROC} or more",
        text=several if len(clear) > 1 else f"It is {best}",
    )


def why_not(row: dict[str, Any], fdr: float = SIGNIFICANT_Q) -> str:
    """Which of the conditions of an association fails; what else a name takes, where none does."""
    reasons: list[str] = []
    if not (is_known(row["q_value"]) and row["q_value"] < fdr):
        reasons.append(f"its q-value is {probability(row['q_value'])}")
    if not (is_known(row["within_low"]) and row["within_low"] > 0.5):
        reasons.append(f"within a video its interval reaches down to {number(row['within_low'])}")
    if not (is_known(row["control_auroc_p95"]) and row["auroc"] > row["control_auroc_p95"]):
        reasons.append(f"5\u00a0% of its controls reach {number(row['control_auroc_p95'])}")
    if not reasons and bool(row["holds"]):
        return "the association holds, but it does not explain enough of the latent, or less than another label does"
    return (
        " and ".join(reasons) or "the baseline’s latents reach it, or the false discovery rate of this run was stricter"
    )


def gallery_latents(catalogue: pd.DataFrame, n: int) -> list[int]:
    """The labelled latents to show: the best latent of every label by held-out AUROC, then the second best ones."""
    rows = catalogue[catalogue["labelled"].astype(bool)]
    rows = rows.sort_values(["top_auroc", "latent"], ascending=[False, True], kind="stable")
    turn = rows.groupby(["top_label_kind", "top_label"]).cumcount()
    rows = rows.assign(turn=turn).sort_values("turn", kind="stable").head(n)
    return [int(latent) for latent in rows["latent"]]


def association_rows(associations: pd.DataFrame, n: int) -> pd.DataFrame:
    """Held-out pairs to list: those that hold, by AUROC; if none does, the highest AUROCs that were tested.

    Labels of whole videos come last: what tells videos apart says least about what a token shows.
    """
    held = associations[associations["split"] == "held_out"]
    holding = held[held["holds"].astype(bool)]
    rows = holding if len(holding) else held
    rows = rows.sort_values(["auroc", "latent", "label"], ascending=[False, True, True], kind="stable")
    return rows.sort_values("level", key=lambda level: level == "video", kind="stable").head(n)
