"""Doses: the expected count as a latent's activations are multiplied by 0, 0.5, 1, 2 and 4.

The margin is the wrong scale for a direction, since a count too high costs as much as one too low. So direction and
monotony are judged in the expected count, each step from one dose to the next with its own interval over videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steer.evidence.claims import LEAST_COUNT
from steer.mechanism.matched import Bench, Estimate, Real, change_of, estimate
from steer.targets import Target

DOSES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Factors of the activations; 1 is the unedited model."""


def dose_rows(bench: Bench, target: Target) -> list[dict[str, Any]]:
    """Rows of doses.parquet for one target: every video with matched questions counts, silent ones as zeros."""
    margin, count = list[Real](), list[Real]()
    for video_id in bench.asked(target.subject):
        case, codes, _ = bench.matched(video_id, target.subject)
        found = {1.0: (0.0, 0.0)}
        if codes.fires(target.latents):
            own = codes.columns(target.latents)
            others = [dose for dose in DOSES if dose != 1.0]
            edits = (change_of(codes, target.latents, dose * own, bench.editor.sae.W_dec) for dose in others)
            shifts = bench.shifts(case, edits)
            found |= {dose: (shifts.margin[at], shifts.count[at]) for at, dose in enumerate(others)}
        rows = np.array([found.get(dose, (0.0, 0.0)) for dose in DOSES], dtype=np.float64)
        margin.append(rows[:, 0])
        count.append(rows[:, 1])
    if not count:
        return []
    return rows_of(target, np.stack(margin), np.stack(count), bench.seed)


def rows_of(target: Target, margin: Real, count: Real, seed: int) -> list[dict[str, Any]]:
    """Average over videos.

    Args:
        target: the target.
        margin: [video, dose] change of the margin.
        count: [video, dose] change of the expected count.
        seed: of the bootstrap.
    """
    changes = [estimate(count[:, at], seed) for at in range(len(DOSES))]
    steps = [estimate(count[:, at] - count[:, at - 1], seed) for at in range(1, len(DOSES))]
    whole = estimate(count[:, -1] - count[:, 0], seed)
    judged = {"shape": shape(steps, whole), "opposed": is_opposed(changes)}
    unknown = Estimate(mean=float("nan"), low=float("nan"), high=float("nan"), n=0)
    return [
        {
            "target": target.id,
            "subject": target.subject,
            "dose": dose,
            "n_videos": len(count),
            **estimate(margin[:, at], seed).columns("delta_margin"),
            **changes[at].columns("delta_expected_count"),
            **(steps[at - 1] if at else unknown).columns("step"),
            **judged,
        }
        for at, dose in enumerate(DOSES)
    ]


def shape(steps: Sequence[Estimate], whole: Estimate) -> str:
    """How the expected count runs with the dose.

    `rising` or `falling` where it changes from the smallest dose to the largest beyond the interval and no step goes
    back beyond its own; `not monotone` where one step rises and another falls, both beyond their intervals; else
    `undecided`.
    """
    signs = {step.sign for step in steps}
    if {1, -1} <= signs:
        return "not monotone"
    if whole.sign == 0 or -whole.sign in signs:
        return "undecided"
    return "rising" if whole.sign > 0 else "falling"


def is_opposed(changes: Sequence[Estimate]) -> bool:
    """Whether less of the latent and more of it move the expected count in opposite directions.

    Both beyond their intervals, and both by `LEAST_COUNT` or more; more is the first dose above 1.
    """
    none, more = changes[0], changes[DOSES.index(1.0) + 1]
    is_large = min(abs(none.mean), abs(more.mean)) >= LEAST_COUNT
    return is_large and none.sign * more.sign == -1
