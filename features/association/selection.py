"""Which (latent, label) pairs are tested: chosen by what the train videos say.

Each latent enters with the label that explains it best there, of all kinds (`features.association.explanation`); each
label of objects, actions and sounds besides with the latents that tell it best from others, by AUROC.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.label_scores import pooled_auroc, within_video_z
from features.association.split_units import SplitUnits
from features.codes import Codes
from features.division import ALONE, Division, blocks_of
from features.labels.corpus import Corpus

SCREEN_Z = 2.0
"""Standard errors over videos that the within-video AUROC must lie above ½ on train for a label to test a latent."""
PER_LABEL = 5
"""Latents with which each label of objects, actions and sounds enters the tests, whatever their own best labels are."""
MIN_CORRELATION = 0.1
"""Correlation on train below which a label says too little about a latent to be tested as its name."""
MAX_NONZEROS = 2_000_000
"""Activations of the latents that are scored at once; each may be alone in its video, and meet all labels there."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Effect sizes of many latents against all labels on the videos of one split."""

    auroc: Float64[np.ndarray, "latent label"]
    within_z: Float64[np.ndarray, "latent label"]


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


def score_all(codes: Codes, corpus: Corpus, division: Division = ALONE) -> tuple[Scores, Scores]:
    """Score all latents on both splits: train, with the z of the within-video AUROC, and held-out.

    Every latent is read once, by the process whose share it is in, and as many at a time as memory allows.
    """
    n_active = codes.n_active()
    own = division.share_by_cost(n_active)
    splits = [ScoredSplit(corpus, held_out=held_out) for held_out in (False, True)]
    parts: list[list[Scores]] = [[], []]
    blocks = list(blocks_of(n_active[own.start : own.stop], MAX_NONZEROS))
    for block in tqdm(blocks, unit="blocks", desc="score latents"):
        some = codes.by_latent(np.arange(own.start + block.start, own.start + block.stop))
        for place, split in enumerate(splits):
            parts[place].append(split.score(some, within=place == 0))
    empty = np.empty((0, len(corpus.all_labels())))

    def join(parts: list[Scores]) -> Scores:
        return Scores(
            auroc=division.join(np.concatenate([empty, *(part.auroc for part in parts)])),
            within_z=division.join(np.concatenate([empty, *(part.within_z for part in parts)])),
        )

    return join(parts[0]), join(parts[1])


def score(codes: sparse.sparray, corpus: Corpus, *, held_out: bool, within: bool) -> Scores:
    """Score latents against all labels on one split.

    Args:
        codes: [token, latent] of the whole store.
        corpus: videos and labels.
        held_out: which split.
        within: whether to give the z of the within-video AUROC too; NaN otherwise.
    """
    return ScoredSplit(corpus, held_out=held_out).score(sparse.csc_array(codes), within=within)


class ScoredSplit:
    """The units of one split in all spaces, for scoring latents on them."""

    def __init__(self, corpus: Corpus, *, held_out: bool) -> None:
        self._spaces = SplitUnits.of_split(corpus, held_out=held_out)

    def score(self, codes: sparse.csc_array, *, within: bool) -> Scores:
        """Score latents, of which `codes` are those on all tokens of the store; see `score`."""
        empty = np.empty((codes.shape[1], 0))
        pooled, z_scores = [empty], [empty]
        by_level: dict[str, sparse.csc_array] = {}
        for units in self._spaces:
            level = units.space.level
            if level not in by_level:
                by_level[level] = units.entries(codes)
            entries = by_level[level]
            pooled.append(pooled_auroc(units, entries))
            z_scores.append(within_video_z(units, entries) if within else np.full_like(pooled[-1], np.nan))
        return Scores(auroc=np.concatenate(pooled, axis=1), within_z=np.concatenate(z_scores, axis=1))


def select_pairs(
    train: Scores, correlation: Float64[np.ndarray, "latent label"], asked: Bool[np.ndarray, " label"]
) -> Selection:
    """Choose the pairs to test.

    Args:
        train: scores of all latents against all labels.
        correlation: of all latents with all labels, on train.
        asked: labels that enter with their best latents.
    """
    n_latents, n_labels = correlation.shape
    chosen = np.zeros((n_latents, n_labels), dtype=bool)
    top, runner_up = np.full(n_latents, -1, dtype=np.int64), np.full(n_latents, -1, dtype=np.int64)
    if n_labels:
        best = correlation.argmax(axis=1)
        latents = np.arange(n_latents)
        has_any = correlation[latents, best] >= MIN_CORRELATION
        top[has_any] = best[has_any]
        chosen[has_any, best[has_any]] = True
        if n_labels > 1:
            others = correlation.copy()
            others[latents, best] = -np.inf
            runner_up[has_any] = others.argmax(axis=1)[has_any]
        candidate = (np.nan_to_num(train.auroc) > 0.5) & (np.nan_to_num(train.within_z) >= SCREEN_Z) & asked
        ranked = np.where(candidate, train.auroc, -np.inf)
        leaders = np.argsort(-ranked, axis=0, kind="stable")[:PER_LABEL]
        chosen[leaders, np.arange(n_labels)] |= candidate[leaders, np.arange(n_labels)]
    latent, label = (index.astype(np.int64) for index in np.nonzero(chosen))
    return Selection(latent=latent, label=label, top=top, runner_up=runner_up)
