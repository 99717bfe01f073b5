"""The best combination of every latent: found on train videos, measured on held-out ones against its best part.

On train, of all the combinations that are tried some explain a latent better than their parts by chance. So what counts
is the gain on held-out videos: how much more the combination correlates with the latent's activation than the best of
its parts there, whichever that is. Its interval leaves out one group of videos at a time, and q-values go over all
combinations that the search chose.

Source: Student's t with the groups' pseudo-values: Tukey 1958; Miller 1974, "The jackknife - a review", Biometrika 61.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float64
from scipy import sparse, stats
from tqdm import tqdm

from collect.artefact.table import column, table_schema
from features.association.explanation import N_GROUPS, Sums, jackknife_error
from features.association.inference import benjamini_hochberg
from features.association.naming import share
from features.association.selection import MAX_NONZEROS, MIN_CORRELATION
from features.codes import Codes
from features.combinations.formulas import Formula
from features.combinations.search import Found, search
from features.combinations.tokens import ActiveTokens, LabelledTokens
from features.division import ALONE, Division, blocks_of
from features.labels.corpus import Corpus

COMBINATIONS = table_schema(
    "One row per latent and number of labels: the combination that correlates most on train videos, and "
    "whether it explains more on held-out ones than each of its parts.",
    column("latent", pa.int32(), "latent", least=0),
    column("depth", pa.int32(), "labels in the combination", least=2),
    column("combination", pa.string(), "the combination, with its labels by name"),
    column("labels", pa.list_(pa.string()), "its labels in their order", null=False),
    column("kinds", pa.list_(pa.string()), "their kinds", null=False),
    column("levels", pa.list_(pa.string()), "their levels", null=False),
    column("n_tried", pa.int64(), "formulas scored on train for this latent up to this depth", least=1),
    column("train_correlation", pa.float64(), "correlation on train videos, by which it was chosen", null=False),
    column("correlation", pa.float64(), "correlation on held-out videos", null=False),
    column("explained", pa.float64(), "share of the variance of the activation that it explains there", null=False),
    column("best_part", pa.string(), "of what is left where labels are dropped, what correlates most there"),
    column("best_part_correlation", pa.float64(), "correlation of that part on held-out videos", null=False),
    column("gain", pa.float64(), "correlation - best_part_correlation", null=False),
    column("gain_low", pa.float64(), "lower end of its 95 % interval, by a jackknife over videos", null=False),
    column("gain_high", pa.float64(), "upper end", null=False),
    column("p_value", pa.float64(), "one-sided t test of the gain over groups of videos", null=False),
    column("q_value", pa.float64(), "Benjamini-Hochberg over all rows", null=False),
    column("n_tokens", pa.int64(), "held-out tokens at which it holds", least=0),
    column("n_videos", pa.int64(), "held-out videos with such tokens", least=0),
    column("beats_parts", pa.bool_(), "whether gain_low is above 0 and q_value below --fdr"),
)


def combine(codes: Codes, corpus: Corpus, *, depth: int, fdr: float, division: Division = ALONE) -> pd.DataFrame:
    """The table `COMBINATIONS`; every process of the division gets it.

    Args:
        codes: of the SAE.
        corpus: videos and labels.
        depth: most labels in a combination.
        fdr: q-value below which a combination may be shown.
        division: the processes that share the latents.
    """
    rows: list[dict[str, Any]] = []
    if corpus.labels:
        train, held_out = (LabelledTokens(corpus, held_out=held_out) for held_out in (False, True))
        n_active = codes.n_active()
        own = division.share_by_cost(n_active)
        with tqdm(total=len(own), unit="latents", desc="combinations") as bar:
            for block in blocks_of(n_active[own.start : own.stop], MAX_NONZEROS):
                latents = np.arange(own.start + block.start, own.start + block.stop)
                some = codes.by_latent(latents)
                for place, latent in enumerate(latents.tolist()):
                    rows += _rows_of(latent, _entries(some, place), train, held_out, corpus, depth)
                bar.update(len(latents))
    rows = division.join_json(rows)
    table = pd.DataFrame(rows, columns=[name for name in COMBINATIONS.names if name not in ("q_value", "beats_parts")])
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    table["beats_parts"] = (table["gain_low"] > 0) & (table["q_value"] < fdr)
    return table


def _entries(codes: sparse.csc_array, place: int) -> tuple[np.ndarray, np.ndarray]:
    own = slice(int(codes.indptr[place]), int(codes.indptr[place + 1]))
    return codes.indices[own], codes.data[own]


def _rows_of(
    latent: int,
    entries: tuple[np.ndarray, np.ndarray],
    train: LabelledTokens,
    held_out: LabelledTokens,
    corpus: Corpus,
    depth: int,
) -> list[dict[str, Any]]:
    active = ActiveTokens(train, *entries)
    if not len(active.value) or not held_out.n:
        return []
    best = float(active.correlation(train.n_with_label(), active.sums_with(None)[1]).max(initial=0.0))
    if best < MIN_CORRELATION:
        return []  # no label says anything about it, so that none is a part
    aside = ActiveTokens(held_out, *entries)
    return [{"latent": latent, **_measured(found, held_out, aside, corpus)} for found in search(train, active, depth)]


def _measured(found: Found, tokens: LabelledTokens, active: ActiveTokens, corpus: Corpus) -> dict[str, Any]:
    """One combination on held-out videos."""
    labels = corpus.all_labels()

    def text(formula: Formula) -> str:
        return formula.text(lambda label: corpus.name(labels[label]))

    formulas = [found.formula, *found.formula.parts()]
    whole, left_out = _correlations(formulas, tokens, active)
    best = 1 + int(whole[1:].argmax())
    gain = float(whole[0] - whole[best])
    error = float(jackknife_error(left_out[:, 0] - left_out[:, best]))
    reach = float(stats.t.ppf(0.975, N_GROUPS - 1)) * error
    holds = found.formula.holds(tokens.column)
    own = [labels[term.label] for term in found.formula.terms]
    return {
        "depth": found.formula.depth,
        "combination": text(found.formula),
        "labels": [corpus.name(label) for label in own],
        "kinds": [label.space.kind for label in own],
        "levels": [label.space.level for label in own],
        "n_tried": found.n_tried,
        "train_correlation": found.correlation,
        "correlation": float(whole[0]),
        "explained": float(share(whole[:1])[0]),
        "best_part": text(formulas[best]),
        "best_part_correlation": float(whole[best]),
        "gain": gain,
        "gain_low": gain - reach,
        "gain_high": gain + reach,
        "p_value": gain_p_value(gain, error),
        "n_tokens": int(holds.sum()),
        "n_videos": len(np.unique(tokens.video[holds])),
    }


def gain_p_value(gain: float, error: float) -> float:
    """One-sided p-value of a gain above 0 with its jackknife error over `N_GROUPS` groups."""
    if error < 1e-12:  # all groups alike: the sign decides, as far as this many groups can
        return float(0.5**N_GROUPS) if gain > 1e-12 else 1.0
    return float(stats.t.sf(gain / error, N_GROUPS - 1))


def _correlations(
    formulas: Sequence[Formula], tokens: LabelledTokens, active: ActiveTokens
) -> tuple[Float64[np.ndarray, " formula"], Float64[np.ndarray, "group formula"]]:
    """Correlation of a latent with each formula: over all groups of videos, and with each left out."""
    shape = N_GROUPS + 1
    n_true, product = np.zeros((shape, len(formulas))), np.zeros((shape, 1, len(formulas)))
    group = tokens.group[active.token]
    for place, formula in enumerate(formulas):
        n_true[:, place] = np.bincount(tokens.group[formula.holds(tokens.column)], minlength=shape)
        own = formula.holds(active.column)
        product[:, 0, place] = np.bincount(group[own], weights=active.value[own], minlength=shape)
    sums = Sums(
        n=np.bincount(tokens.group, minlength=shape).astype(np.float64),
        latent=np.bincount(group, weights=active.value, minlength=shape)[:, None].astype(np.float64),
        latent_squared=np.bincount(group, weights=active.value**2, minlength=shape)[:, None].astype(np.float64),
        label=n_true,
        product=product,
    )
    whole = sums.over(np.arange(shape) > 0).correlations()[0, 0]
    return whole, sums.with_one_left_out()[:, 0]
