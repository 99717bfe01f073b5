"""Swaps: a latent's activations exchanged with those of the same question's video of another count.

Activations move by time step and patch, and each video keeps the SAE's error. If the latent carries the count, the
expected count follows the other video's. A swap with a video of the same count shows what an exchange moves that has
nothing to do with counting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from steer.edits.partners import partners, true_count
from steer.mechanism.matched import Bench, change_of, video_draws
from steer.targets import Target


def swap_rows(bench: Bench, target: Target) -> list[dict[str, Any]]:
    """Rows of swaps.parquet for one target: one per item and kind of partner."""
    asked = bench.asked(target.subject)
    items = {item.item_id: item for own in asked.values() for item in own}
    shapes = {video_id: bench.cases.scene(video_id).shape for video_id in asked}
    rows: list[dict[str, Any]] = []
    for same_count in (False, True):
        found = partners(tuple(items.values()), shapes, same_count=same_count)
        for item_id, other in found.items():
            item = items[item_id]
            case, codes, _ = bench.matched(item.video_id, target.subject)
            place = next(at for at, each in enumerate(case.items) if each.item_id == item_id)
            _, theirs, _ = bench.matched(other.video_id, target.subject)
            after = theirs.columns(target.latents)
            change = change_of(codes, target.latents, after, bench.editor.sae.W_dec)
            if bool(change.any()):
                shifts = bench.shifts(case.of_items([place]), [change])
                margin, count = float(shifts.margin[0]), float(shifts.count[0])
            else:
                margin, count = 0.0, 0.0
            rows.append(
                {
                    "target": target.id,
                    "subject": target.subject,
                    "item": item_id,
                    "video_id": item.video_id,
                    "partner": other.video_id,
                    "count": true_count(item),
                    "partner_count": true_count(other),
                    "delta_margin": margin,
                    "delta_expected_count": count,
                }
            )
    return rows


def swap_summary(rows: list[dict[str, Any]], target: Target, seed: int) -> list[dict[str, Any]]:
    """One row of swap_summary.parquet: the change of the count over the gap between the counts, and at no gap.

    An exchange also does damage: the partner's activations lie where its own events were. A line over all swaps, those
    with partners of the same count among them, tells the two apart. Intervals are over videos.
    """
    gaps = np.array([row["partner_count"] - row["count"] for row in rows], dtype=np.float64)
    if len(set(gaps.tolist())) < 2:
        return []
    moved = np.array([row["delta_expected_count"] for row in rows], dtype=np.float64)
    names, video = np.unique(np.array([row["video_id"] for row in rows], dtype=str), return_inverse=True)
    drawn = video_draws(len(names), seed)
    weights = np.stack([np.bincount(each, minlength=len(names))[video] for each in drawn]).astype(np.float64)
    slope, offset = line(gaps, moved, np.ones((1, len(gaps))))
    slopes, offsets = line(gaps, moved, weights)
    found: dict[str, float] = {}
    for name, value, values in (("slope", slope[0], slopes), ("offset", offset[0], offsets)):
        low, high = np.nanquantile(values, [0.025, 0.975])
        found |= {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
    return [
        {"target": target.id, "subject": target.subject, "n_swaps": len(rows), "n_videos": len(names), **found},
    ]


def line(
    x: Float[np.ndarray, " point"], y: Float[np.ndarray, " point"], weights: Float[np.ndarray, "draw point"]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """Slope and value at zero of the least-squares line under each row of weights; NaN where all x are equal."""
    total = weights.sum(axis=1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    variance = weights @ x**2 / total - mean_x**2
    covariance = weights @ (x * y) / total - mean_x * mean_y
    slope = np.divide(covariance, variance, out=np.full(len(total), np.nan), where=variance > 1e-12)
    return slope, mean_y - slope * mean_x
