"""Which (latent, label) pairs are tested: chosen by their scores on the train videos."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse
from tqdm import tqdm

from features.association.inference import clustered_z
from features.association.statistics import auroc, rank_codes
from features.codes import Codes
from features.labels.corpus import Corpus
from features.labels.views import views

SCREEN_Z = 2.0
"""Standard errors over videos that the within-video AUROC must lie above ½ on train for a pair to be a candidate."""
PER_LABEL = 5
"""Latents with which each label enters the tests, whatever their own best labels are."""
MAX_NONZEROS = 8_000_000
"""Activations of the latents that are scored at once; sorting them takes about 100 bytes each."""


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
    """Label with the highest AUROC of each latent among its candidates; -1 where it has none."""
    runner_up: Int64[np.ndarray, " latent"]
    """Label with the next highest AUROC; -1 where `top` is or there is no other label."""


def score_all(codes: Codes, corpus: Corpus, firing_rate: Float64[np.ndarray, " latent"]) -> tuple[Scores, Scores]:
    """Score all latents on both splits, as many latents at a time as memory allows."""
    n_nonzeros = np.cumsum(firing_rate * codes.n_tokens)
    block_of_latent = (n_nonzeros // MAX_NONZEROS).astype(np.int64)
    train: list[Scores] = []
    held: list[Scores] = []
    for block in tqdm(np.unique(block_of_latent), unit="blocks", desc="score latents"):
        some = codes.columns(np.flatnonzero(block_of_latent == block).astype(np.int64))
        train.append(score(some, corpus, held_out=False, within=True))
        held.append(score(some, corpus, held_out=True, within=False))

    def join(parts: list[Scores]) -> Scores:
        return Scores(
            auroc=np.concatenate([part.auroc for part in parts]),
            within_z=np.concatenate([part.within_z for part in parts]),
        )

    return join(train), join(held)


def score(codes: sparse.csr_array, corpus: Corpus, *, held_out: bool, within: bool) -> Scores:
    """Score latents against all labels on one split.

    Args:
        codes: [token, latent] of the whole store.
        corpus: videos and labels.
        held_out: which split.
        within: whether to give the z of the within-video AUROC too; NaN otherwise.
    """
    n_latents = codes.shape[1]
    pooled: list[Float64[np.ndarray, " latent"]] = []
    z_scores: list[Float64[np.ndarray, " latent"]] = []
    for view in views(codes, corpus, held_out=held_out):
        ranked = rank_codes(view.codes)
        by_video = rank_codes(view.codes, view.video) if within else None
        for label in range(len(view.names)):
            positive, negative = view.masks(label)
            pooled.append(auroc(ranked, positive, negative)[:, 0])
            if by_video is not None:
                z_scores.append(clustered_z(auroc(by_video, positive, negative)))
    empty = np.empty((n_latents, 0))
    joined = np.stack(pooled, axis=1) if pooled else empty
    return Scores(auroc=joined, within_z=np.stack(z_scores, axis=1) if z_scores else np.full_like(joined, np.nan))


def select_pairs(train: Scores) -> Selection:
    """Choose the pairs to test: each latent's best label, and each label's `PER_LABEL` best latents."""
    n_latents, n_labels = train.auroc.shape
    candidate = (np.nan_to_num(train.auroc) > 0.5) & (np.nan_to_num(train.within_z) >= SCREEN_Z)
    chosen = np.zeros((n_latents, n_labels), dtype=bool)
    top, runner_up = np.full(n_latents, -1, dtype=np.int64), np.full(n_latents, -1, dtype=np.int64)
    if n_labels:
        ranked = np.where(candidate, train.auroc, -np.inf)
        best = ranked.argmax(axis=1)
        has_any = candidate.any(axis=1)
        top[has_any] = best[has_any]
        chosen[has_any, best[has_any]] = True
        others = np.where(np.isnan(train.auroc), -np.inf, train.auroc)
        others[np.arange(n_latents), best] = -np.inf
        has_other = has_any & np.isfinite(others).any(axis=1)
        runner_up[has_other] = others.argmax(axis=1)[has_other]
        leaders = np.argsort(-ranked, axis=0, kind="stable")[:PER_LABEL]
        chosen[leaders, np.arange(n_labels)] |= candidate[leaders, np.arange(n_labels)]
    latent, label = (index.astype(np.int64) for index in np.nonzero(chosen))
    return Selection(latent=latent, label=label, top=top, runner_up=runner_up)
