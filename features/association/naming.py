"""Which latents get a name: the one rule, and why a latent has none.

The candidate of each latent is the label that explained it best on train videos. It is the latent's name if, on
held-out videos,

- its association holds (`features.association.associate`), with an effect above the floors that the user sets;
- it has a size: at least so many positive units, and the latent tells it in enough of the videos that show it;
- it explains enough of the latent's activation. Much of what latents follow is not annotated (a coloured lamp, a pose),
  and a label that explains little is mostly the next best thing to what the latent follows;
- place and time do not explain it better: for a name of a place or a time, not by more than the margin;
- no other label explains it better by more than the margin.

Labels that held-out videos cannot tell from the name are given with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64

from features.association.explanation import Explanation
from features.association.selection import Selection
from features.config import FeaturesConfig
from features.labels.corpus import Corpus
from features.labels.labelling import PLACES, TIMES

Z_95 = 1.96
MAX_ALSO = 5
"""Labels that are given with a name at most, those that explain most first."""


@dataclass(frozen=True, kw_only=True)
class Names:
    """The candidate name of each latent, and whether it is one. Numbers are those on held-out videos."""

    labelled: Bool[np.ndarray, " latent"]
    correlation: Float64[np.ndarray, " latent"]
    """With the candidate; NaN where there is none."""
    explained: Float64[np.ndarray, " latent"]
    """Share of the activation's variance that the candidate explains; 0 where the correlation is negative."""
    explained_low: Float64[np.ndarray, " latent"]
    """Lower end of its 95 % interval, by a jackknife over videos."""
    explained_by_place_time: Float64[np.ndarray, " latent"]
    """Share that the mean activation on train videos by place and time explains."""
    also: list[list[str]]
    """Labels that cannot be told from the candidate."""
    unnamed_because: list[str | None]
    """The first floor that the candidate misses; None for a name, and where there is no candidate."""


def name_latents(
    table: pd.DataFrame, selection: Selection, explanation: Explanation, corpus: Corpus, config: FeaturesConfig
) -> Names:
    """Decide every latent's name.

    Args:
        table: rows of the tested pairs, two per pair in the order of the selection, with `holds`.
        selection: with the candidate of each latent.
        explanation: correlations of all latents with all labels.
        corpus: labels.
        config: floors and the false discovery rate.
    """
    n = len(selection.top)
    nothing = np.full(n, np.nan)
    names = Names(
        labelled=np.zeros(n, dtype=bool),
        correlation=nothing.copy(),
        explained=nothing.copy(),
        explained_low=nothing.copy(),
        explained_by_place_time=share(explanation.place_time),
        also=[[] for _ in range(n)],
        unnamed_because=[None] * n,
    )
    labels = corpus.all_labels()
    rows = {pair: 2 * index + 1 for index, pair in enumerate(zip(selection.latent, selection.label, strict=True))}
    records = table.to_dict("records") if len(table) else []
    for latent in np.flatnonzero(selection.top >= 0):
        top = int(selection.top[latent])
        correlations = explanation.held_out[latent]
        own = float(correlations[top])
        names.correlation[latent] = own
        names.explained[latent] = share(np.array([own]))[0]
        low = own - Z_95 * float(explanation.top_error[latent])
        names.explained_low[latent] = share(np.array([low]))[0]
        reason = _missing(
            records[rows[latent, top]],
            correlations,
            top,
            low,
            float(explanation.place_time[latent]),
            is_place=labels[top].space in (PLACES, TIMES),
            config=config,
        )
        names.unnamed_because[latent] = reason
        names.labelled[latent] = reason is None
        alike = correlations >= own - Z_95 * explanation.lead_error[latent]
        alike &= correlations >= (1 - config.floors.margin) * own
        alike[top] = False
        ranked = np.argsort(-correlations, kind="stable")
        names.also[latent] = [corpus.name(labels[other]) for other in ranked if alike[other]][:MAX_ALSO]
    return names


def share(correlation: Float64[np.ndarray, " latent"]) -> Float64[np.ndarray, " latent"]:
    """Share of variance that a correlation explains; nothing where it is negative."""
    return np.clip(correlation, 0, None) ** 2


def _missing(
    row: dict[str, Any],
    correlations: Float64[np.ndarray, " label"],
    top: int,
    low: float,
    place_time: float,
    *,
    is_place: bool,
    config: FeaturesConfig,
) -> str | None:
    """The first condition of a name that does not hold, in the words of the table."""
    floors = config.floors
    own = float(correlations[top])
    lenient = own / (1 - floors.margin)
    conditions = {
        "few units": row["n_positive"] >= floors.min_units,
        "not significant": row["q_value"] < config.fdr,
        "low AUROC": row["auroc"] >= floors.min_auroc,
        "low AUROC within videos": row["within_low"] > 0.5 and row["within_low"] >= floors.min_within,
        "in few videos": row["videos_share"] >= floors.min_share,
        "no better than controls": row["auroc"] > row["control_auroc_p95"],
        "no better than the baseline": not row["auroc"] <= row["baseline_auroc_p95"],
        "explains little": own > 0 and low > 0 and own**2 >= floors.min_explained,
        "place and time explain it better": place_time <= (lenient if is_place else own),
        "another label explains it better": float(correlations.max()) <= lenient,
    }
    return next((reason for reason, holds in conditions.items() if not holds), None)
