"""From effects per item to one row per target and operation, aggregated to the video and set against the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ask.inference import (
    FloatArray,
    bootstrap_interval,
    control_p_value,
    control_percentile,
    detectable_effect,
    sign_flip_p,
    video_means,
)
from ask.questions import Item
from features.association.inference import benjamini_hochberg
from steer.config import Operation
from steer.controls import FAMILIES
from steer.interventions import magnitude
from steer.tables import SUMMARY
from steer.targets import Target

SIGNIFICANT_Q = 0.05
"""q-value below which an effect that beats its controls is confirmed."""
MEASURES = ("delta_margin", "delta_accuracy", "right_to_wrong", "wrong_to_right", "delta_expected_count", "kl")


def summarise(
    effects: pd.DataFrame,
    controls: pd.DataFrame,
    screen: pd.DataFrame,
    items: Sequence[Item],
    targets: Sequence[Target],
    operations: Sequence[Operation],
    seed: int,
) -> pd.DataFrame:
    """Return summary.parquet.

    Args:
        effects: rows of effects.parquet.
        controls: rows of controls.parquet.
        screen: rows of screen.parquet.
        items: all evaluated items; the held-out ones count.
        targets: what was edited.
        operations: how.
        seed: seed of the bootstrap and the sign flips.
    """
    counting = [item for item in items if item.held_out and item.counting]
    other = [item for item in items if item.held_out and not item.counting]
    by_edit = dict(list(effects.groupby(["target", "operation"], sort=False)))
    by_magnitude = dict(list(controls.groupby(["target", "magnitude"], sort=False)))
    screened = screen.set_index("latent")
    rows: list[dict[str, Any]] = []
    for target in targets:
        for operation in operations:
            rows.append(
                {
                    "target": target.id,
                    "latents": list(target.latents),
                    "operation": str(operation),
                    "method": "exact",
                    "selected_by": target.selected_by,
                    "firing_rate": float(screened.loc[target.latents[0], "firing_rate"])
                    if len(target.latents) == 1
                    else None,
                    **_effect(by_edit.get((target.id, str(operation))), counting, other, seed),
                    "screened": _prediction(screened, target, operation),
                }
            )
            found = by_magnitude.get((target.id, magnitude(operation)))
            rows[-1] |= _against_controls(rows[-1]["delta_margin"], found)
    table = pd.DataFrame(rows, columns=[name for name in SUMMARY.names if name not in ("q_value", "confirmed")])
    table = table.assign(q_value=benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64)))
    confirmed = table["beats_controls"].astype("boolean") & (table["q_value"] < SIGNIFICANT_Q)
    return table.assign(confirmed=confirmed.astype(object).where(table["beats_controls"].notna(), None))


def _effect(effects: pd.DataFrame | None, counting: Sequence[Item], other: Sequence[Item], seed: int) -> dict[str, Any]:
    """Aggregate the effects of one target and operation; items without a row were not touched and count as zeros."""
    frame = effects if effects is not None else pd.DataFrame(columns=["item", "video_id", *MEASURES])
    by_item = frame.set_index("item")
    means = {name: _means(by_item[name], counting) for name in MEASURES}
    control_means = _means(by_item["delta_margin"], other)
    active_videos = set(frame["video_id"])
    # One generator per row, always from the seed: a row does not depend on which others are in the table.
    rng = np.random.default_rng(seed)
    low, high = bootstrap_interval(means["delta_margin"], rng)
    count_low, count_high = bootstrap_interval(means["delta_expected_count"], rng)
    control_low, control_high = bootstrap_interval(control_means, rng)
    videos = sorted({item.video_id for item in counting})
    active = [video in active_videos for video in videos]
    result = {name: _mean(values) for name, values in means.items()}
    control_mean = _mean(control_means)
    return result | {
        "n_items": len(counting),
        "n_items_active": sum(item.video_id in active_videos for item in counting),
        "n_videos": len(videos),
        "n_videos_active": sum(active),
        "delta_margin_low": low,
        "delta_margin_high": high,
        "delta_margin_active": _mean(means["delta_margin"][active]),
        "delta_expected_count_low": count_low,
        "delta_expected_count_high": count_high,
        "p_value": sign_flip_p(means["delta_margin"], rng),
        "detectable": detectable_effect(means["delta_margin"]),
        "delta_margin_control": control_mean,
        "delta_margin_control_low": control_low,
        "delta_margin_control_high": control_high,
        "specificity": abs(result["delta_margin"]) - abs(control_mean),
    }


def _means(values: pd.Series, items: Sequence[Item]) -> FloatArray:
    """Mean per video over all items, ordered by video id; untouched items are zeros."""
    filled = values.reindex([item.item_id for item in items]).fillna(0.0).to_numpy(dtype=np.float64)
    return video_means(filled, [item.video_id for item in items])


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _prediction(screened: pd.DataFrame, target: Target, operation: Operation) -> float | None:
    """What the screen estimates: attribution is the effect of an ablation; scaling by c has (1 - c) times that."""
    if operation.kind not in ("ablate", "scale"):
        return None
    total = screened.loc[list(target.latents), "attribution_held_out"].fillna(0.0).sum()
    return float(total) * (1 - operation.strength)


def _against_controls(effect: float, controls: pd.DataFrame | None) -> dict[str, Any]:
    """Compare one effect with the controls that have its norms."""
    values = np.zeros(0) if controls is None else controls["delta_margin"].to_numpy(dtype=np.float64)
    families = np.zeros(0, dtype=str) if controls is None else controls["family"].to_numpy(dtype=str)
    limits = {name: control_percentile(values[families == name]) for name in FAMILIES}
    known = [limit for limit in limits.values() if not np.isnan(limit)]
    largest = max(known) if known else float("nan")
    return {
        "n_controls": len(values),
        **{f"control_p95_{name}": limit for name, limit in limits.items()},
        "control_p95": largest,
        "control_p_value": control_p_value(effect, values),
        "beats_controls": bool(abs(effect) > largest) if known else None,
    }
