"""What was edited, next to what it goes with: association and effect as two axes of one table.

Input association and output effect rarely coincide in one latent, so the report shows both for every target. Pure
functions of summary.parquet and catalogue.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from report.wording import counted, is_known
from steer.reading import SIGNIFICANT_Q, Target


def alone(summary: pd.DataFrame) -> pd.Series:
    """Which rows are about a single latent."""
    return summary["latents"].map(len) == 1


def beyond_controls(row: Mapping[str, Any]) -> bool:
    """Whether an edit moves its subject's questions more than its controls do."""
    return is_known(row["control_q_value"]) and float(row["control_q_value"]) < SIGNIFICANT_Q


def confirmed(summary: pd.DataFrame) -> pd.Series:
    """Which edits move their subject's questions over videos and more than their controls do."""
    return summary["confirmed"].map(lambda value: is_known(value) and bool(value)).astype(bool)


def single_latents(summary: pd.DataFrame, chosen: pd.Series) -> list[int]:
    """The single latents of some rows, the largest effect first."""
    rows = summary[chosen & alone(summary)]
    order = rows["delta_margin"].abs().sort_values(ascending=False, kind="stable").index
    return list(dict.fromkeys(int(latents[0]) for latents in rows.loc[order, "latents"]))


@dataclass(frozen=True, kw_only=True)
class TargetRow:
    """One edited target with its association and its effects."""

    target: Target
    association: dict[str, Any] | None
    """Row of catalogue.parquet; None for a set or without the features stage."""
    effects: tuple[dict[str, Any], ...]
    """Rows of summary.parquet, one per operation."""

    @property
    def title(self) -> str:
        """Name in tables and charts."""
        if not self.target.is_set:
            return f"latent {self.target.latents[0]}"
        if self.target.label is None:
            return f"set of {len(self.target.latents)}"
        return f"{self.target.label} ({self.target.label_kind})"

    @property
    def label(self) -> str:
        """Its name, or that it has none."""
        if self.association is None:
            return "" if self.target.label is None else f"{len(self.target.latents)} latents"
        return str(self.association["top_label"]) if bool(self.association["labelled"]) else "no name"


def target_rows(
    summary: pd.DataFrame, targets: Mapping[str, Target], catalogue: pd.DataFrame | None
) -> list[TargetRow]:
    """Targets by the size of their first operation's effect, the sets last."""
    known = {} if catalogue is None else {int(row["latent"]): row for row in catalogue.to_dict("records")}
    rows = [
        TargetRow(
            target=targets[str(target)],
            association=None if targets[str(target)].is_set else known.get(targets[str(target)].latents[0]),
            effects=tuple(group.to_dict("records")),
        )
        for target, group in summary.groupby("target", sort=False)
    ]
    return sorted(rows, key=lambda row: (row.target.is_set, -abs(row.effects[0]["delta_margin"])))


def coincidence(rows: Sequence[TargetRow]) -> str:
    """Do the latents that have a name also have an effect? A sentence over the single latents that were edited."""
    singles = [row for row in rows if row.association is not None]
    if not singles:
        return ""
    table = {(label, effect): 0 for label in (True, False) for effect in (True, False)}
    for row in singles:
        has_label = bool(row.association is not None and row.association["labelled"])
        table[has_label, any(is_known(e["confirmed"]) and bool(e["confirmed"]) for e in row.effects)] += 1
    labelled, unlabelled = (table[label, True] + table[label, False] for label in (True, False))
    return (
        f"Of {counted(labelled, 'edited latent')} with a name, {table[True, True]} "
        f"{'has' if table[True, True] == 1 else 'have'} a confirmed effect; of {unlabelled} without one, "
        f"{table[False, True]}."
    )
