"""Which (latent, label) pairs are tested: chosen by what the train videos say.

Each latent enters with the label that explains it best there, of all kinds (`features.association.explanation`); each
label of objects, actions and sounds besides with the latents that tell it best from others, by AUROC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.label_scores import pooled_auroc, within_video_z
from features.association.split_units import SplitUnits
from features.codes import Codes
from features.division import ALONE, Division, blocks_of

SCREEN_Z = 2.0
"""Standard errors over videos that the within-video AUROC must lie above ½ on train for a label to test a latent."""
PER_LABEL = 5
"""Latents with which each label of objects, actions and sounds enters the tests, whatever their own best labels are."""
MIN_CORRELATION = 0.1
"""Correlation on train below which a label says too little about a latent to be tested as its name."""
MAX_NONZEROS = 2_000_000
"""Activations of the latents that are scored at once, which takes about a kilobyte each."""
FIRST_TRIED = 16
"""Latents of each label whose within-video AUROCs are looked at first; twice as many each time it is not enough."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Pairs that were chosen on the train videos."""

    latent: Int64[np.ndarray, " pair"]
    label: Int64[np.ndarray, " pair"]
    """Index into `Corpus.all_labels`."""
    top: Int64[np.ndarray, " latent"]
    """Label that explains each latent best; -1 where none correlates by `MIN_CORRELATION`."""
    runner_up: Int64[np.ndarray, " latent"]
    """Label that explains it next best; -1 where `top` is or there is no other label."""


def score(
    codes: Codes, spaces: Sequence[SplitUnits], division: Division = ALONE
) -> Float64[np.ndarray, "latent label"]:
    """AUROC of all latents for all labels of some spaces, space by space.

    Every latent is read once, by the process whose share it is in, and as many at a time as memory allows.

    Args:
        codes: of all tokens.
        spaces: units of one split.
        division: processes that share the latents; each gets the result.
    """
    n_active = codes.n_active()
    own = division.share_by_cost(n_active)
    blocks = list(blocks_of(n_active[own.start : own.stop], MAX_NONZEROS))
    parts = [np.empty((0, sum(units.n_labels for units in spaces)))]
    for block in tqdm(blocks, unit="blocks", desc="score latents"):
        some = codes.by_latent(np.arange(own.start + block.start, own.start + block.stop))
        parts.append(score_some(some, spaces))
    return division.join(np.concatenate(parts))


def score_some(codes: sparse.csc_array, spaces: Sequence[SplitUnits]) -> Float64[np.ndarray, "latent label"]:
    """The same of some latents, of which `codes` are those on all tokens of the store."""
    pooled = [np.empty((codes.shape[1], 0))]
    pooled += [pooled_auroc(*pair) for pair in zip(spaces, entries_of(codes, spaces), strict=True)]
    return np.concatenate(pooled, axis=1)


def entries_of(codes: sparse.csc_array, spaces: Sequence[SplitUnits]) -> list[sparse.csc_array]:
    """Activations [unit, latent] on the units of each space, from those on all tokens; spaces of a level share them."""
    by_level = {units.space.level: units for units in spaces}
    entries = {level: units.entries(codes) for level, units in by_level.items()}
    return [entries[units.space.level] for units in spaces]


def pairs_by_space(
    spaces: Sequence[SplitUnits], label: Int64[np.ndarray, " pair"]
) -> Iterator[tuple[SplitUnits, Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]]:
    """The spaces to which the labels of some pairs belong, with these pairs and their labels' columns there."""
    first = 0
    for units in spaces:
        own = np.flatnonzero((label >= first) & (label < first + units.n_labels))
        if len(own):
            yield units, own, label[own] - first
        first += units.n_labels


Measure = Callable[[SplitUnits, sparse.csc_array, Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]], np.ndarray]
"""(units, entries, latents, labels) -> a number for each pair."""


def measure_pairs(
    codes: Codes,
    spaces: Sequence[SplitUnits],
    latent: Int64[np.ndarray, " pair"],
    label: Int64[np.ndarray, " pair"],
    measure: Measure,
    division: Division = ALONE,
) -> Float64[np.ndarray, " pair"]:
    """Measure pairs, each by the process whose share its latent is in; every process gets the result.

    Args:
        codes: of all tokens.
        spaces: units of one split.
        latent: of each pair.
        label: of each pair, counted through the spaces.
        measure: what to measure.
        division: processes that share the latents.
    """
    order = np.argsort(latent, kind="stable")
    latents, start = np.unique(latent[order], return_index=True)
    start = np.append(start, len(latent))
    n_active = codes.n_active()[latents]
    own = division.share_by_cost(n_active)
    parts = [np.empty(0)]
    for block in blocks_of(n_active[own.start : own.stop], MAX_NONZEROS):
        first, stop = own.start + block.start, own.start + block.stop
        some = codes.by_latent(latents[first:stop])
        pairs = order[start[first] : start[stop]]
        result = np.full(len(pairs), np.nan)
        by_level: dict[str, sparse.csc_array] = {}
        for units, which, column in pairs_by_space(spaces, label[pairs]):
            if units.space.level not in by_level:
                by_level[units.space.level] = units.entries(some)
            of = np.searchsorted(latents[first:stop], latent[pairs[which]])
            result[which] = measure(units, by_level[units.space.level], of, column)
        parts.append(result)
    found = np.empty(len(latent))
    found[order] = division.join(np.concatenate(parts))
    return found


def best_latents(
    codes: Codes,
    spaces: Sequence[SplitUnits],
    auroc: Float64[np.ndarray, "latent label"],
    division: Division = ALONE,
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """The latents that tell each label best: `PER_LABEL` by falling AUROC, of those that videos agree about.

    How well videos agree is measured for as many latents as it takes to find these.

    Args:
        codes: of all tokens.
        spaces: units of the train videos.
        auroc: from `score`.
        division: processes that share the latents.

    Returns:
        Latents and labels, these counted through the spaces.
    """
    n_measured = [((units.n_positive > 0) & (units.n_negative > 0)).sum(axis=0) for units in spaces]
    has_spread = np.concatenate([np.empty(0, dtype=np.int64), *n_measured]) >= 2
    ranked: dict[int, Int64[np.ndarray, " latent"]] = {}
    for label in np.flatnonzero(has_spread).tolist():
        above = np.flatnonzero(auroc[:, label] > 0.5)
        ranked[label] = above[np.argsort(-auroc[above, label], kind="stable")]
    found: dict[int, list[int]] = {label: [] for label in ranked}
    tried, size = 0, FIRST_TRIED
    while ranked := {
        label: latents for label, latents in ranked.items() if len(latents) > tried and len(found[label]) < PER_LABEL
    }:
        pairs = [(latent, label) for label, latents in ranked.items() for latent in latents[tried : tried + size]]
        latent, label = np.array(pairs, dtype=np.int64).T
        z = measure_pairs(codes, spaces, latent, label, within_video_z, division)
        for own, of in zip(latent[z >= SCREEN_Z].tolist(), label[z >= SCREEN_Z].tolist(), strict=True):
            if len(found[of]) < PER_LABEL:
                found[of].append(own)
        tried, size = tried + size, 2 * size
    pairs = [(latent, label) for label, latents in found.items() for latent in latents]
    latent, label = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return latent, label


def select_pairs(
    correlation: Float64[np.ndarray, "latent label"],
    latent: Int64[np.ndarray, " pair"],
    label: Int64[np.ndarray, " pair"],
) -> Selection:
    """Choose the pairs to test.

    Args:
        correlation: of all latents with all labels, on train.
        latent: of the pairs that are tested in any case, from `best_latents`.
        label: of these pairs.
    """
    n_latents, n_labels = correlation.shape
    chosen = np.zeros((n_latents, n_labels), dtype=bool)
    chosen[latent, label] = True
    top, runner_up = np.full(n_latents, -1, dtype=np.int64), np.full(n_latents, -1, dtype=np.int64)
    if n_labels:
        best = correlation.argmax(axis=1)
        latents = np.arange(n_latents)
        has_any = correlation[latents, best] >= MIN_CORRELATION
        top[has_any] = best[has_any]
        chosen[has_any, best[has_any]] = True
        for latent_with_name in np.flatnonzero(has_any) if n_labels > 1 else ():
            others = correlation[latent_with_name].copy()
            others[best[latent_with_name]] = -np.inf
            runner_up[latent_with_name] = others.argmax()
    latent, label = (index.astype(np.int64) for index in np.nonzero(chosen))
    return Selection(latent=latent, label=label, top=top, runner_up=runner_up)
