"""From effects per item to one row per target and operation, aggregated to the video and set against the controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from ask.inference import control_p_value
from ask.questions import Item
from features.association.inference import benjamini_hochberg
from steer.controls import FAMILIES
from steer.edits.operations import Operation
from steer.evidence.contrasts import Contrasts, Group, Real, groups_of
from steer.screens.estimates import ESTIMATES
from steer.tables import LATENT_SUBJECTS, SUMMARY, TARGET_SUBJECTS
from steer.targets import Target

SIGNIFICANT_Q = 0.05
"""Below it, the q-value over videos and that against controls make an effect a confirmed one."""
LATENTS_AT_ONCE = 1024
"""Latents summarised together; bounds the memory."""
_FURTHER = ("delta_accuracy", "right_to_wrong", "wrong_to_right", "kl")


def by_latent(sweep: pd.DataFrame, items: Sequence[Item], seed: int) -> pd.DataFrame:
    """Return latent_subjects.parquet.

    Args:
        sweep: sweep.parquet, from `with_estimates`.
        items: all evaluated items; the train ones count.
        seed: of the bootstrap and the sign flips.
    """
    train = [item for item in items if not item.held_out]
    contrasts, groups = Contrasts(train, seed), groups_of(train)
    place = pd.Index([item.item_id for item in train])
    is_exact = sweep.groupby("latent")["method"].agg(lambda methods: bool((methods == "exact").all()))
    reached = {name: _reached(sweep, column, train) for name, column in ESTIMATES.items()}
    columns = {**ESTIMATES, "alone": "direct_delta_margin"}
    frames: list[pd.DataFrame] = []
    for start in range(0, len(is_exact), LATENTS_AT_ONCE):
        latents = is_exact.index[start : start + LATENTS_AT_ONCE]
        own = sweep[sweep["latent"].isin(latents)]
        at = (place.get_indexer(own["item"]), latents.get_indexer(own["latent"]))
        names = ("fires", "margin", "count", *columns)
        values = {name: np.zeros((len(train), len(latents))) for name in names}
        values["fires"][at] = 1.0
        values["margin"][at] = own["delta_margin"].fillna(0.0)
        values["count"][at] = own["delta_expected_count"].fillna(0.0)
        for name, column in columns.items():
            values[name][at] = own[column].fillna(0.0)
        exact = is_exact.loc[latents].to_numpy()
        # All of a latent is known if there is a value in every video where it fires.
        whole = own[list(columns.values())].notna().groupby(own["latent"]).all().loc[latents]
        for group in groups:
            found = contrasts.columns(group, values["margin"], values["count"])
            frame = pd.DataFrame({name: np.where(exact, each, np.nan) for name, each in found.items()})
            fires = contrasts.means(values["fires"], group.matched)
            means: dict[str, Real] = {}
            for name, column in ESTIMATES.items():
                among = group.matched & reached[name]
                # A latent that fires in none of the videos that a screen reached was not seen by it.
                seen = contrasts.means(values["fires"], among).mean() > 0
                everywhere = contrasts.means(values[name], group.matched).mean()
                some = np.where(seen, contrasts.means(values[name], among).mean(), np.nan)
                means[name] = np.where(whole[column].to_numpy(dtype=bool), everywhere, some)
            method, estimate = np.full(len(latents), "gradient", dtype=object), means["gradient"]
            for name in reversed(ESTIMATES):
                known = ~np.isnan(means[name])
                method[known], estimate = name, np.where(known, means[name], estimate)
            frames.append(
                frame.assign(
                    latent=latents,
                    scope=group.scope,
                    name=group.name,
                    method=np.where(exact, "exact", method),
                    attribution=means["gradient"],
                    direct_delta_margin=np.where(
                        whole["direct_delta_margin"], contrasts.means(values["alone"], group.matched).mean(), np.nan
                    ),
                    estimate=estimate,
                    n_items=int(group.matched.sum()),
                    n_videos=int(fires.has.sum()),
                    n_videos_active=(fires.own > 0).sum(axis=0),
                )
            )
    if not frames:
        return pd.DataFrame(columns=LATENT_SUBJECTS.names)
    table = pd.concat(frames, ignore_index=True)
    return table.sort_values(["latent", "scope", "name"], kind="stable", ignore_index=True)[LATENT_SUBJECTS.names]


def _reached(sweep: pd.DataFrame, column: str, items: Sequence[Item]) -> Bool[np.ndarray, " item"]:
    """Whether a screen reached each item's video, with all latents that fire in it."""
    whole = sweep.groupby("video_id")[column].agg(lambda values: bool(values.notna().all()))
    return np.array([bool(whole.get(item.video_id, False)) for item in items], dtype=bool)


@dataclass(frozen=True, kw_only=True, eq=False)
class Summaries:
    """What the effects on held-out videos come to."""

    summary: pd.DataFrame
    """summary.parquet."""
    subjects: pd.DataFrame
    """target_subjects.parquet."""


def summarise(
    effects: pd.DataFrame,
    controls: pd.DataFrame,
    screen: pd.DataFrame,
    items: Sequence[Item],
    targets: Sequence[Target],
    operations: Sequence[Operation],
    seed: int,
) -> Summaries:
    """Average the effects on held-out videos and set them against their controls.

    Args:
        effects: rows of effects.parquet.
        controls: rows of controls.parquet.
        screen: rows of screen.parquet.
        items: all evaluated items; the held-out ones count.
        targets: what was edited.
        operations: how.
        seed: seed of the bootstrap and the sign flips.
    """
    held_out = [item for item in items if item.held_out]
    contrasts = Contrasts(held_out, seed)
    groups = groups_of(held_out, ("subject",))
    by_edit = dict(list(effects.groupby(["target", "operation"], sort=False)))
    by_magnitude = dict(list(controls.groupby(["target", "magnitude"], sort=False)))
    screened = screen.set_index("latent")
    rows: list[dict[str, Any]] = []
    by_subject: list[dict[str, Any]] = []
    for target in targets:
        rate = None if target.is_set else float(screened.loc[target.latents[0], "firing_rate"])
        for operation in operations:
            edit = _Edited(by_edit.get((target.id, str(operation))), held_out)
            for group in groups:
                is_chosen = group.name == target.subject
                named = {"target": target.id, "operation": str(operation)}
                contrast = edit.contrast(contrasts, group)
                by_subject.append({**named, "subject": group.name, "is_chosen": is_chosen, **contrast})
                if is_chosen:
                    rows.append(
                        {
                            **named,
                            "latents": list(target.latents),
                            "method": "exact",
                            "selected_by": target.selected_by,
                            "subject": target.subject,
                            "family": family(target, operation),
                            "firing_rate": rate,
                            **contrast,
                            **edit.further(contrasts, group),
                            "specificity": _specificity(contrast),
                            **_against_controls(
                                contrast["delta_margin"], by_magnitude.get((target.id, operation.magnitude))
                            ),
                        }
                    )
    decided = ("q_value", "control_q_value", "confirmed")
    table = pd.DataFrame(rows, columns=[name for name in SUMMARY.names if name not in decided])
    return Summaries(
        summary=_with_q_values(table)[SUMMARY.names],
        subjects=pd.DataFrame(by_subject, columns=TARGET_SUBJECTS.names),
    )


def family(target: Target, operation: Operation) -> str:
    """Rows that are tested together: single latents or sets, one way of choosing them, one operation, one subject."""
    return f"{'sets' if target.is_set else 'single latents'} ({target.selected_by}), {operation}, {target.subject}"


def _with_q_values(table: pd.DataFrame) -> pd.DataFrame:
    def adjusted(p: pd.Series) -> pd.Series:
        known = p.notna()
        values = pd.Series(np.nan, index=p.index)
        values[known] = benjamini_hochberg(p[known].to_numpy(dtype=np.float64))
        return values

    for name in ("", "control_"):
        p = table[f"{name}p_value"].astype(np.float64)
        table[f"{name}q_value"] = p.groupby(table["family"], sort=False).transform(adjusted)
    confirmed = (table["q_value"] < SIGNIFICANT_Q) & (table["control_q_value"] < SIGNIFICANT_Q)
    return table.assign(confirmed=confirmed.astype(object).where(table["n_controls"] > 0, None))


class _Edited:
    """Effects of one target and operation on every held-out item; untouched ones are zeros."""

    def __init__(self, effects: pd.DataFrame | None, items: Sequence[Item]) -> None:
        self._items = items
        names = [item.item_id for item in items]
        empty = pd.DataFrame(columns=["item", "delta_margin", "delta_expected_count", *_FURTHER])
        self._by_item = (empty if effects is None else effects).set_index("item").reindex(names)
        self._touched = self._by_item["delta_margin"].notna().to_numpy()

    def _column(self, name: str) -> Real:
        return self._by_item[name].fillna(0.0).to_numpy(dtype=np.float64)[:, None]

    def contrast(self, contrasts: Contrasts, group: Group) -> dict[str, Any]:
        """The columns of a contrast."""
        found = contrasts.columns(group, self._column("delta_margin"), self._column("delta_expected_count"))
        touched = contrasts.means(self._touched[:, None].astype(np.float64), group.matched)
        return {name: float(values[0]) for name, values in found.items()} | {
            "n_items": int(group.matched.sum()),
            "n_videos": int(touched.has.sum()),
            "n_videos_active": int((touched.own > 0).sum()),
        }

    def further(self, contrasts: Contrasts, group: Group) -> dict[str, Any]:
        """The columns of summary.parquet that only the chosen subject has."""
        margin = contrasts.means(self._column("delta_margin"), group.matched).own[:, 0]
        active = contrasts.means(self._touched[:, None].astype(np.float64), group.matched).own[:, 0] > 0
        return {name: float(contrasts.means(self._column(name), group.matched).mean()[0]) for name in _FURTHER} | {
            "n_items_active": int((self._touched & group.matched).sum()),
            "delta_margin_active": float(margin[active].mean()) if active.any() else float("nan"),
        }


def _specificity(contrast: dict[str, Any]) -> float:
    others = [abs(contrast[f"delta_margin_{of}"]) for of in ("other", "noncounting")]
    return abs(contrast["delta_margin"]) - max((other for other in others if not np.isnan(other)), default=0.0)


def _against_controls(effect: float, controls: pd.DataFrame | None) -> dict[str, Any]:
    """Compare one effect with the controls that have its norms."""
    values = np.zeros(0) if controls is None else controls["delta_margin"].to_numpy(dtype=np.float64)
    families = np.zeros(0, dtype=str) if controls is None else controls["family"].to_numpy(dtype=str)
    largest = {name: float(np.abs(values[families == name]).max(initial=-np.inf)) for name in FAMILIES}
    known = {name: size for name, size in largest.items() if size >= 0}
    return {
        "n_controls": len(values),
        **{f"control_max_{name}": known.get(name) for name in FAMILIES},
        "control_max": max(known.values(), default=None),
        "control_p_value": control_p_value(effect, values),
    }
