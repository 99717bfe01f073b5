"""What held-out videos say about the selected pairs: effect sizes, intervals over videos, permutation p-values."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy import sparse

from features.association.inference import (
    auroc_interval,
    bootstrap_counts,
    mean_interval,
    merge_strata,
    permutation_p_values,
    permute_within,
)
from features.association.permutation import RankedPairs, Relabel, sum_ranks
from features.association.selection import Selection
from features.association.statistics import auroc, average_precision, best_threshold, f1_score, rank_codes, video_wins
from features.codes import Codes
from features.config import FeaturesConfig
from features.labels.corpus import Corpus, Label
from features.labels.labelling import Space
from features.labels.units import max_pool, unit_starts, units_of
from features.labels.views import View, views

LENT_LABELS = 1024
"""Labels of one video under another's annotations that are kept for other videos with the same grid."""


def judge(codes: Codes, selection: Selection, corpus: Corpus, config: FeaturesConfig) -> list[dict[str, Any]]:
    """Effect sizes of the selected pairs on both splits; intervals and p-values on held-out. Two rows a pair."""
    finalists = np.unique(selection.latent)
    column = np.searchsorted(finalists, selection.latent).astype(np.int64)
    some = codes.columns(finalists)
    rng = np.random.default_rng([config.seed, 1])
    counts = bootstrap_counts(len(corpus.split(held_out=True)), config.bootstraps, rng)
    labels = corpus.all_labels()
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    thresholds: dict[int, float] = {}
    for split in ("train", "held_out"):
        for view in views(some, corpus, held_out=split == "held_out", background=True):
            pairs = [pair for pair, label in enumerate(selection.label) if labels[label].space == view.space]
            effects = _effects(view, pairs, column, [labels[selection.label[pair]] for pair in pairs])
            for pair, effect in effects:
                if split == "train":
                    thresholds[pair] = best_threshold(effect.activations, effect.positive, effect.negative)
                name = corpus.name(labels[selection.label[pair]])
                rows[pair, split] = {
                    "latent": int(selection.latent[pair]),
                    "label": name,
                    "kind": view.space.kind,
                    "level": view.space.level,
                    "split": split,
                    **effect.columns(thresholds[pair], counts if split == "held_out" else None),
                    "p_value": float("nan"),
                }
    p_values = _test(some, column, selection, corpus, config)
    for pair, p_value in enumerate(p_values):
        rows[pair, "held_out"]["p_value"] = float(p_value)
    return [rows[pair, split] for pair in range(len(selection.latent)) for split in ("train", "held_out")]


@dataclass(frozen=True, kw_only=True)
class _Effect:
    """One pair on one split."""

    activations: Float64[np.ndarray, " unit"]
    positive: Bool[np.ndarray, " unit"]
    negative: Bool[np.ndarray, " unit"]
    video: Int64[np.ndarray, " unit"]
    auroc: float
    auroc_background: float
    within: Float64[np.ndarray, " video"]
    precision: float
    hidden_share: float

    def columns(self, threshold: float, counts: Float64[np.ndarray, "resample video"] | None) -> dict[str, Any]:
        n_positive, n_negative = int(self.positive.sum()), int(self.negative.sum())
        low = high = within_low = within_high = float("nan")
        if counts is not None:
            n_videos = counts.shape[1]
            used = self.positive | self.negative
            wins = video_wins(
                self.activations[used], self.positive[used], self.negative[used], self.video[used], n_videos
            )
            positives, negatives = (
                np.bincount(self.video[mask], minlength=n_videos).astype(np.float64)
                for mask in (self.positive, self.negative)
            )
            low, high = auroc_interval(wins, positives, negatives, counts)
            padded = np.full((1, n_videos), np.nan)
            padded[0, : len(self.within)] = self.within
            within_low, within_high = (float(bound[0]) for bound in mean_interval(padded, counts))
        measured = self.within[~np.isnan(self.within)]
        return {
            "auroc": self.auroc,
            "auroc_low": low,
            "auroc_high": high,
            "auroc_background": self.auroc_background,
            "within_video_auroc": float(measured.mean()) if len(measured) else float("nan"),
            "within_low": within_low,
            "within_high": within_high,
            "ap": self.precision,
            "base_rate": n_positive / max(n_positive + n_negative, 1),
            "f1": f1_score(self.activations, self.positive, self.negative, threshold),
            "threshold": threshold,
            "n_positive": n_positive,
            "n_negative": n_negative,
            "n_videos": len(measured),
            "n_videos_positive": len(np.unique(self.video[self.positive])),
            "hidden_share": self.hidden_share,
        }


def _effects(
    view: View, pairs: list[int], column: Int64[np.ndarray, " pair"], labels: list[Label]
) -> Iterator[tuple[int, _Effect]]:
    ranked, by_video = rank_codes(view.codes), rank_codes(view.codes, view.video)
    dense = view.codes.tocsc()
    for index in sorted({label.column for label in labels}):
        positive, negative = view.masks(index)
        pooled = auroc(ranked, positive, negative)[:, 0]
        background = auroc(ranked, positive, view.background & ~positive)[:, 0]
        within = auroc(by_video, positive, negative)
        precision = average_precision(ranked, positive, negative)[:, 0]
        hidden_share = view.hidden[:, index].sum() / max(positive.sum(), 1)
        for pair, label in zip(pairs, labels, strict=True):
            if label.column == index:
                latent = column[pair]
                yield (
                    pair,
                    _Effect(
                        activations=dense[:, [latent]].toarray()[:, 0].astype(np.float64),
                        positive=positive,
                        negative=negative,
                        video=view.video,
                        auroc=float(pooled[latent]),
                        auroc_background=float(background[latent]),
                        within=within[latent],
                        precision=float(precision[latent]),
                        hidden_share=float(hidden_share),
                    ),
                )


def _test(
    codes: sparse.csr_array,
    column: Int64[np.ndarray, " pair"],
    selection: Selection,
    corpus: Corpus,
    config: FeaturesConfig,
) -> Float64[np.ndarray, " pair"]:
    """P-values of the selected pairs by permuting annotations between held-out videos of one stratum."""
    videos = corpus.split(held_out=True)
    labels = corpus.all_labels()
    strata = merge_strata(corpus.strata(videos))
    frames = max_pool(codes, corpus.records)
    tested: list[RankedPairs] = []
    members: dict[Space, list[int]] = {}
    for space, own in corpus.labels.items():
        pairs = [pair for pair, label in enumerate(selection.label) if labels[label].space == space]
        if pairs:
            starts = unit_starts(corpus.records, space.level)
            members[space] = pairs
            tested.append(
                RankedPairs(
                    space=space,
                    codes=(codes if space.level == "token" else frames)[units_of(starts, videos)],
                    start=np.cumsum([0, *np.diff(starts)[videos]], dtype=np.int64),
                    column=column[pairs],
                    label=np.array([labels[selection.label[pair]].column for pair in pairs], dtype=np.int64),
                    n_labels=len(own.names),
                )
            )
    sums = sum_ranks(tested, _lender(corpus, videos), strata)
    rng = np.random.default_rng([config.seed, 2])
    permutations = permute_within(strata, len(videos), config.permutations, rng)
    p_values = np.full(len(column), np.nan)
    for space, pairs in members.items():
        p_values[pairs] = permutation_p_values(sums[space], permutations)
    return p_values


def _lender(corpus: Corpus, videos: Int64[np.ndarray, " video"]) -> Relabel:
    """`Corpus.relabel` by rank among some videos; videos with equal grids share one answer."""
    grids = [corpus.records[video].grid for video in videos]
    first_with: dict[bytes, int] = {}
    alike = [
        first_with.setdefault(grid.spans_s.tobytes() + grid.boxes.tobytes(), int(video))
        for video, grid in zip(videos, grids, strict=True)
    ]
    lend = functools.lru_cache(maxsize=LENT_LABELS)(corpus.relabel)
    return lambda video, other: lend(alike[video], int(videos[other]))
