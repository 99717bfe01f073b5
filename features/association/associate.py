"""Every latent against every label: selected on the train videos, judged on the held-out ones.

1. On train videos, all labels compete for each latent by correlation; objects, actions and sounds besides get AUROCs.
2. Each latent enters with the label that explains it best, each object, action, sound and answer with its best latents.
3. On held-out videos, these pairs get effect sizes, bootstrap intervals over videos, a p-value by permuting annotations
   between whole videos, and a q-value over all tested pairs.
4. A pair holds if q is below the rate asked for, the interval of the within-video AUROC (of the AUROC, where the label
   is one of whole videos) lies above ½, and the AUROC beats
   the 95th percentile of control directions that fire as often, and of a baseline SAE's latents where there is one.
5. What may be a latent's name is decided by `features.association.naming`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from features.association.controls import Controls
from features.association.explanation import Explanation, explain
from features.association.inference import benjamini_hochberg
from features.association.judgement import judge
from features.association.naming import Names, name_latents
from features.association.pair_effects import pair_aurocs
from features.association.selection import Selection, best_latents, measure_pairs, score, select_pairs
from features.association.split_units import SplitUnits
from features.association.whole_videos import best_for_videos, with_pairs
from features.codes import Codes
from features.config import FeaturesConfig
from features.division import ALONE, Division
from features.labels.corpus import Corpus
from features.labels.labelling import ASKED, QUESTIONS

CONTROL_PERCENTILE = 95


@dataclass(frozen=True, kw_only=True)
class Associations:
    """What was found; `features.catalogue.ASSOCIATIONS` describes the columns of `table`."""

    table: pd.DataFrame
    selection: Selection
    explanation: Explanation
    names: Names
    runner_up_auroc: Float64[np.ndarray, " latent"]
    """AUROC of the label that explains each latent next best, on held-out videos; NaN where there is none."""


def associate(
    codes: Codes,
    controls: Controls,
    corpus: Corpus,
    firing_rate: Float64[np.ndarray, " latent"],
    config: FeaturesConfig,
    division: Division = ALONE,
    *,
    baseline: Controls | None = None,
) -> Associations:
    """Select pairs on train and judge them on held-out videos; every process of the division gets the result.

    Args:
        codes: of the SAE.
        controls: directions that were not trained.
        corpus: videos and labels.
        firing_rate: of each latent.
        config: floors, rates, seed.
        division: processes that share the latents.
        baseline: latents of a baseline SAE, read like controls.
    """
    explanation = explain(codes, corpus, division)
    train, held_out = (SplitUnits.of_split(corpus, held_out=held_out) for held_out in (False, True))
    selection = _selected(codes, train, explanation, corpus, division)
    rows: list[dict[str, Any]] = []
    if len(selection.latent):
        rows = judge(codes, selection, corpus, config, division, train=train, held_out=held_out)
        for row, (latent, label) in zip(rows, _pairs_of_rows(selection), strict=True):
            correlations = explanation.train if row["split"] == "train" else explanation.held_out
            row["correlation"] = float(correlations[latent, label])
        for name, compared in (("control", controls), ("baseline", baseline)):
            _compare(rows, selection, firing_rate, (train, held_out), name, compared, division)
    table = pd.DataFrame(rows)
    if len(table):
        table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
        beats_baseline = ~(table["auroc"] <= table["baseline_auroc_p95"])  # nothing to beat where there is none
        table["holds"] = (
            (table["q_value"] < config.fdr)
            & (table["within_low"].where(table["level"] != "video", table["auroc_low"]) > 0.5)
            & (table["auroc"] > table["control_auroc_p95"])
            & beats_baseline
        )
    return Associations(
        table=table,
        selection=selection,
        explanation=explanation,
        names=name_latents(table, selection, explanation, corpus, config),
        runner_up_auroc=_runner_up_auroc(codes, held_out, selection, division),
    )


def _selected(
    codes: Codes, train: Sequence[SplitUnits], explanation: Explanation, corpus: Corpus, division: Division
) -> Selection:
    """The pairs that are tested; only labels that ask for their best latents need all latents' AUROCs."""
    asked = [units for units in train if units.space in ASKED]
    videos = [units for units in train if units.space == QUESTIONS]
    auroc = score(codes, [*asked, *videos], division)
    n_asked = sum(units.n_labels for units in asked)
    latent, label = best_latents(codes, asked, auroc[:, :n_asked], division)
    of_asked = np.flatnonzero([label.space in ASKED for label in corpus.all_labels()])
    selection = select_pairs(explanation.train, latent, of_asked[label])
    return with_pairs(selection, *best_for_videos(auroc[:, n_asked:], corpus))


def _pairs_of_rows(selection: Selection) -> list[tuple[int, int]]:
    """Latent and label of each row: two rows per pair."""
    return [
        (int(latent), int(label))
        for latent, label in zip(selection.latent, selection.label, strict=True)
        for _ in ("train", "held_out")
    ]


def _runner_up_auroc(
    codes: Codes, held_out: Sequence[SplitUnits], selection: Selection, division: Division
) -> Float64[np.ndarray, " latent"]:
    result = np.full(len(selection.runner_up), np.nan)
    latents = np.flatnonzero(selection.runner_up >= 0)
    labels = selection.runner_up[latents]
    result[latents] = measure_pairs(codes, held_out, latents, labels, pair_aurocs, division)
    return result


def _compare(
    rows: list[dict[str, Any]],
    selection: Selection,
    firing_rate: Float64[np.ndarray, " latent"],
    splits: tuple[Sequence[SplitUnits], Sequence[SplitUnits]],
    name: str,
    compared: Controls | None,
    division: Division,
) -> None:
    """Add what others of the same firing rate score for each pair's label, and the one that train would have picked."""
    missing = {f"{name}_auroc_p95": float("nan"), f"{name}_auroc_best": float("nan")}
    for row in rows:
        row |= missing
    if compared is None:
        return
    train, held = (compared.score(spaces, division) for spaces in splits)
    bins = compared.bin_of(firing_rate[selection.latent])
    for pair, label in enumerate(selection.label):
        matched = compared.bin == bins[pair]
        scores = held[matched, label]
        known = scores[~np.isnan(scores)]
        if len(known):
            picked = np.nan_to_num(train[matched, label]).argmax()
            rows[2 * pair + 1] |= {
                f"{name}_auroc_p95": float(np.percentile(known, CONTROL_PERCENTILE)),
                f"{name}_auroc_best": float(scores[picked]),
            }
