"""The verdict on what latents do to the answers, in plain sentences.

Every word follows from summary.parquet and claims.parquet; nothing is decided here. That there is no effect is said
only where one could have been found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from report.claim_rows import OTHERS, per_family
from report.verdicts import Verdict
from report.wording import action, change, counted, is_known, number, signed, target_name
from steer.reading import ENOUGH_VIDEOS, SIGNIFICANT_Q, Target

CONFIRMED_CLAIMS = ("specific", "not specific", "specificity not tested")
"""Claims about effects that hold over videos and against controls."""


def effect_verdict(summary: pd.DataFrame | None, claims: pd.DataFrame | None, targets: Mapping[str, Target]) -> Verdict:
    """Does a latent, or a set of them, move the questions about one subject, beyond its controls, and others little?

    Args:
        summary: summary.parquet; None without the steer stage.
        claims: claims.parquet.
        targets: the targets by id.
    """
    question = "Does a latent move the answers to counting questions?"
    if summary is None or claims is None or not len(summary):
        return Verdict(
            question=question,
            answer="unknown",
            headline="effects on the answers were not compared with controls",
            text="The steer stage is not finished." if summary is None else "There are no effects of the steer stage.",
        )
    if not len(claims):
        return Verdict(
            question=question,
            answer="unknown",
            headline="what edits do to the answers was measured and not judged",
            text="claims.parquet, which says what the effects allow to say, is missing: run `video-sae steer` again.",
        )
    sized = sorted(summary.to_dict("records"), key=lambda row: (-abs(row["delta_margin"]), row["target"]))
    named: dict[str, list[dict[str, Any]]] = {}
    claim_of = dict(zip(zip(claims["target"], claims["operation"], strict=True), claims["claim"], strict=True))
    for row in sized:
        named.setdefault(str(claim_of.get((row["target"], row["operation"]))), []).append(row)
    specific, broad, untested = (named.get(name, []) for name in CONFIRMED_CLAIMS)
    if not specific and not broad and not untested:
        return _no_effect(question, sized, named, claims, targets)
    shown = specific or broad or untested
    n_moving = len(specific) + len(broad) + len(untested)
    text = (
        f"{_moving(n_moving, sized)} over videos and against controls, {len(specific)} of them others by a quarter of "
        f"that at most{f'; for {len(untested)}, too few others were asked to tell' if untested else ''}. The largest"
        f"{' of these' if len(shown) < n_moving else ''}: {effect_sentence(shown[0], targets)}"
    )
    singles = [row for row in shown if not targets[row["target"]].is_set]
    if singles and singles[0] is not shown[0]:
        text += f" The largest of a single latent: {effect_sentence(singles[0], targets)}"
    names = list(dict.fromkeys(summary["target"]))
    moving = list(dict.fromkeys(row["target"] for row in shown))
    single, together = ([name for name in moving if targets[name].is_set == flag] for flag in (False, True))
    n_sets = sum(targets[name].is_set for name in names)
    who = [f"{len(single)} of {counted(len(names) - n_sets, 'edited latent')}"] if single else []
    if together:
        who.append("the edited set" if n_sets == 1 else f"{len(together)} of {counted(n_sets, 'edited set')}")
    verb = "move" if len(moving) > 1 else "moves"
    what = "the answers to counting questions; whether others too was not tested"
    if specific:
        what = "the answers to the questions about one subject, and others by a quarter of that at most"
    elif broad:
        what = "the answers to counting questions, but not, or not surely, of one subject alone"
    return Verdict(
        question=question,
        answer="yes" if specific else "partly",
        headline=f"{' and '.join(who)} {verb} {what}",
        text=text,
    )


def _edits(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many edits and targets there are."""
    return f"{counted(len(rows), 'edit')} ({counted(len({row['target'] for row in rows}), 'target')})"


def _moving(n: int, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the edits move their questions, up to what they were tested over."""
    verb = "moves its" if n == 1 else "move their"
    return f"{n} of {_edits(rows)} {verb} subject’s questions with q < {SIGNIFICANT_Q}"


def _no_effect(
    question: str,
    sized: Sequence[Mapping[str, Any]],
    named: Mapping[str, Sequence[Mapping[str, Any]]],
    claims: pd.DataFrame,
    targets: Mapping[str, Target],
) -> Verdict:
    """What is said where no effect is confirmed: that there is none only where one could have been found.

    Args:
        question: of the verdict.
        sized: rows of summary.parquet, the largest effect first.
        named: the same by claim.
        claims: claims.parquet.
        targets: the targets by id.
    """
    largest = f"The largest change: {effect_sentence(sized[0], targets)}"
    n_few = len(named.get("too few videos", []))
    if "no controls" in named:
        return Verdict(
            question=question,
            answer="unknown",
            headline="effects on the answers were not compared with controls",
            text=f"It was run without controls. {_moving(len(named['no controls']), sized)} over videos. {largest}",
        )
    if "too few controls" in named:
        needed = per_family(claims["controls_needed"].min())
        return Verdict(
            question=question,
            answer="undecided",
            headline="controls were too few to tell whether an edited latent or set moves the counting answers more",
            text=f"{_moving(len(named['too few controls']), sized)} over videos and more than any of the controls, "
            f"which are too few to tell: it takes `video-sae steer --controls {needed}` at least. {largest}",
        )
    if n_few == len(sized):
        return Verdict(
            question=question,
            answer="unknown",
            headline="too few held-out videos show what the edited latents do to the answers",
            text=f"Each of {_edits(sized)} has an effect in fewer than {ENOUGH_VIDEOS} held-out videos of its "
            "subject’s questions, in which no test can find anything.",
        )
    few = f" {n_few} of them have an effect in too few videos to tell." if n_few else ""
    return Verdict(
        question=question,
        answer="no",
        headline="no edited latent or set was found to move the counting answers more than matched controls do",
        text=f"None of {_edits(sized)} moves its subject’s questions with q < {SIGNIFICANT_Q} both over videos and "
        f"against controls.{few} {largest}",
    )


def effect_sentence(row: Mapping[str, Any], targets: Mapping[str, Target]) -> str:
    """One edit, from its name to its non-counting questions."""
    text = (
        f"{action(row['operation']).lower()} {target_name(targets[row['target']])}, "
        f"{change(row, 'delta_margin', ' nats')} on “{row['subject']}” questions"
    )
    if is_known(row["control_max"]):
        text += f", where its controls stay within ±{number(row['control_max'], 2)}"
    for name, of in OTHERS:
        if is_known(row[f"delta_margin_{name}"]):
            text += f"; {of} {signed(row[f'delta_margin_{name}'], 2)}"
    return text + "."
