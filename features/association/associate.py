"""Every latent against every label: selected on the train videos, judged on the held-out ones.

1. On train videos, all pairs get a pooled AUROC and the mean within-video AUROC with its z over videos.
2. Pairs above chance in both are candidates. Each latent enters with its best label, each label with its best latents.
3. On held-out videos, these pairs get effect sizes, bootstrap intervals over videos, a p-value by permuting annotations
   between whole videos, and a q-value over all tested pairs.
4. A pair holds if q is below the rate asked for, the within-video AUROC's interval lies above ½, and the AUROC beats
   the 95th percentile of control directions that fire as often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from features.association.controls import Controls
from features.association.inference import benjamini_hochberg
from features.association.judgement import judge
from features.association.selection import Selection, score, score_all, select_pairs
from features.codes import Codes
from features.config import FeaturesConfig
from features.division import ALONE, Division
from features.labels.corpus import Corpus

CONTROL_PERCENTILE = 95


@dataclass(frozen=True, kw_only=True)
class Associations:
    """What was found; `features.catalogue.ASSOCIATIONS` describes the columns of `table`."""

    table: pd.DataFrame
    selection: Selection
    held_out_auroc: Float64[np.ndarray, "latent label"]
    """Pooled AUROC of all pairs on held-out videos."""


def associate(
    codes: Codes,
    controls: Controls,
    corpus: Corpus,
    firing_rate: Float64[np.ndarray, " latent"],
    config: FeaturesConfig,
    division: Division = ALONE,
) -> Associations:
    """Select pairs on train and judge them on held-out videos; every process of the division gets the result."""
    train, held = score_all(codes, corpus, division)
    selection = select_pairs(train)
    rows: list[dict[str, Any]] = []
    if len(selection.latent):
        control_train = score(controls.codes, corpus, held_out=False, within=False).auroc
        control_held = score(controls.codes, corpus, held_out=True, within=False).auroc
        rows = judge(codes, selection, corpus, config, division)
        bins = controls.bin_of(firing_rate[selection.latent])
        for index, row in enumerate(rows):
            pair = index // 2
            row |= _control_columns(
                control_train, control_held, controls.bin == bins[pair], int(selection.label[pair]), row["split"]
            )
    table = pd.DataFrame(rows)
    if len(table):
        table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
        table["holds"] = (
            (table["q_value"] < config.fdr)
            & (table["within_low"] > 0.5)
            & (table["auroc"] > table["control_auroc_p95"])
        )
    return Associations(table=table, selection=selection, held_out_auroc=held.auroc)


def _control_columns(
    train: Float64[np.ndarray, "control label"],
    held: Float64[np.ndarray, "control label"],
    matched: Bool[np.ndarray, " control"],
    label: int,
    split: str,
) -> dict[str, float]:
    """What matched controls score for a label, and the control that a selection on train would have picked."""
    if split == "train":
        return {"control_auroc_p95": float("nan"), "control_auroc_best": float("nan")}
    scores = held[matched, label]
    picked = np.nan_to_num(train[matched, label]).argmax()
    known = scores[~np.isnan(scores)]
    return {
        "control_auroc_p95": float(np.percentile(known, CONTROL_PERCENTILE)) if len(known) else float("nan"),
        "control_auroc_best": float(scores[picked]),
    }
