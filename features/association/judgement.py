"""What held-out videos say about the selected pairs: effect sizes, intervals over videos, p-values.

Annotations are permuted between videos for p-values. That changes nothing about places and times, which all videos have
alike; of these the within-video AUROC is tested over videos.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy import sparse, stats

from features.association.inference import (
    auroc_interval,
    bootstrap_counts,
    divide_strata,
    mean_interval,
    merge_strata,
    permute_within,
)
from features.association.loans import Lender
from features.association.pair_effects import PairEffect, pair_effects
from features.association.permutation import TestedPairs, enough_exceedances, permutation_p_values
from features.association.ranks import RankLevels, VideoRanks, levels_for_each
from features.association.selection import Selection
from features.association.split_units import SplitUnits
from features.codes import Codes
from features.config import FeaturesConfig
from features.division import ALONE, Division, blocks_of
from features.labels.corpus import Corpus
from features.labels.labelling import ANNOTATED

MAX_NONZEROS = 1 << 22
"""Activations of the latents that are judged at once, which takes about 100 bytes each."""
TELLS = 0.6
"""Within-video AUROC above which a latent tells a label in a video."""
INTERVAL_PAIRS = 256
"""Pairs whose intervals are computed at once."""


def judge(
    codes: Codes,
    selection: Selection,
    corpus: Corpus,
    config: FeaturesConfig,
    division: Division = ALONE,
    *,
    train: Sequence[SplitUnits],
    held_out: Sequence[SplitUnits],
) -> list[dict[str, Any]]:
    """Effect sizes of the selected pairs on both splits; intervals and p-values on held-out. Two rows a pair.

    Args:
        codes: of all tokens.
        selection: the pairs.
        corpus: videos and labels.
        config: permutations, resamples, seed.
        division: processes that share the latents and the videos; each gets the result.
        train: units of the train videos, one per space.
        held_out: the same of the others.
    """
    rows: list[dict[str, Any]] = []
    latents = np.unique(selection.latent)
    n_active = codes.n_active()[latents]
    own = division.share_by_cost(n_active)
    test = _Test.of(corpus, config, train, held_out)
    by_level = {units.space.level: units for units in test.held_out}
    levels: dict[str, list[RankLevels]] = {level: [] for level in by_level}
    for block in blocks_of(n_active[own.start : own.stop], MAX_NONZEROS):
        first_latent = own.start + block.start
        chosen = latents[first_latent : own.start + block.stop]
        first, stop = np.searchsorted(selection.latent, [chosen[0], chosen[-1] + 1])
        some = codes.by_latent(chosen)
        rows += _judge_block(some, chosen, selection, range(int(first), int(stop)), corpus, test)
        for level, units in by_level.items():
            levels[level].append(RankLevels.of(units.entries(some), first_latent, levels_for_each(len(latents))))
    rows = division.join_json(rows)
    joined = {level: RankLevels.joined(parts, division) for level, parts in levels.items()}
    for pair, p_value in enumerate(_p_values(codes, latents, joined, selection, corpus, test, division)):
        if not np.isnan(p_value):
            rows[2 * pair + 1]["p_value"] = float(p_value)
    return rows


def _p_values(
    codes: Codes,
    latents: Int64[np.ndarray, " latent"],
    levels: dict[str, RankLevels],
    selection: Selection,
    corpus: Corpus,
    test: _Test,
    division: Division,
) -> Float64[np.ndarray, " pair"]:
    """P-values of all pairs, by permuting annotations between held-out videos; NaN of places and times."""
    labels = corpus.all_labels()
    members: list[Int64[np.ndarray, " _"]] = []
    tested: list[TestedPairs] = []
    for space, units, lender in zip(corpus.labels, test.held_out, test.lenders, strict=True):
        pairs = [pair for pair, at in enumerate(selection.label) if labels[at].space == space and space in ANNOTATED]
        own = np.array(pairs, dtype=np.int64)
        members.append(own)
        tested.append(
            TestedPairs(
                level=space.level,
                n_units=units.n_units,
                latent=np.searchsorted(latents, selection.latent[own]).astype(np.int64),
                label=np.array([labels[selection.label[pair]].column for pair in own], dtype=np.int64),
                n_labels=units.n_labels,
                lend=lender.loan,
            )
        )
    records = [corpus.records[video] for video in corpus.split(held_out=True)]
    found = permutation_p_values(
        tested,
        VideoRanks(codes, records, latents, levels),
        test.permutations,
        exceedances=test.exceedances,
        division=division,
    )
    p_values = np.full(len(selection.latent), np.nan)
    for own, values in zip(members, found, strict=True):
        p_values[own] = values
    return p_values


@dataclass(frozen=True, kw_only=True)
class _Test:
    """What all pairs are judged by."""

    train: Sequence[SplitUnits]
    """One per space."""
    held_out: Sequence[SplitUnits]
    lenders: list[Lender]
    resamples: Float64[np.ndarray, "resample video"]
    permutations: Int64[np.ndarray, "permutation video"]
    exceedances: int

    @classmethod
    def of(
        cls, corpus: Corpus, config: FeaturesConfig, train: Sequence[SplitUnits], held_out: Sequence[SplitUnits]
    ) -> _Test:
        videos = corpus.split(held_out=True)
        grids = [corpus.records[video].grid for video in videos]
        strata = divide_strata(merge_strata(corpus.strata(videos)), np.random.default_rng([config.seed, 4]))
        return cls(
            train=train,
            held_out=held_out,
            lenders=[Lender(units, grids) for units in held_out],
            resamples=bootstrap_counts(len(videos), config.bootstraps, np.random.default_rng([config.seed, 1])),
            permutations=permute_within(
                strata, len(videos), config.permutations, np.random.default_rng([config.seed, 2])
            ),
            exceedances=enough_exceedances(config.permutations, config.fdr),
        )


def _judge_block(
    codes: sparse.csc_array,
    latents: Int64[np.ndarray, " latent"],
    selection: Selection,
    pairs: range,
    corpus: Corpus,
    test: _Test,
) -> list[dict[str, Any]]:
    """Judge the pairs of some latents.

    Args:
        codes: [token, latent] of these latents.
        latents: the latents.
        selection: all pairs, ordered by latent.
        pairs: those of these latents.
        corpus: labels.
        test: what they are judged by.
    """
    labels = corpus.all_labels()
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for place, space in enumerate(corpus.labels):
        own = np.array([pair for pair in pairs if labels[selection.label[pair]].space == space], dtype=np.int64)
        if not len(own):
            continue
        label = np.array([labels[selection.label[pair]].column for pair in own], dtype=np.int64)
        needed, column = np.unique(np.searchsorted(latents, selection.latent[own]), return_inverse=True)
        some = codes if len(needed) == codes.shape[1] else codes[:, needed]
        thresholds = np.full(len(own), np.nan)
        for split, units in (("train", test.train[place]), ("held_out", test.held_out[place])):
            entries = units.entries(some)
            is_held_out = split == "held_out"
            found = pair_effects(units, entries, column, label, thresholds if is_held_out else None)
            while batch := list(itertools.islice(found, INTERVAL_PAIRS)):
                indices = [index for index, _ in batch]
                effects = [effect for _, effect in batch]
                thresholds[indices] = [effect.threshold for effect in effects]
                columns = _columns(units, label[indices], effects, test.resamples if is_held_out else None)
                for index, measured in zip(indices, columns, strict=True):
                    rows[int(own[index]), split] = {
                        "latent": int(selection.latent[own[index]]),
                        "label": units.names[label[index]],
                        "kind": space.kind,
                        "level": space.level,
                        "split": split,
                        **measured,
                        "p_value": within_p_value(effects[indices.index(index)].within)
                        if is_held_out
                        else float("nan"),
                    }
    return [rows[pair, split] for pair in pairs for split in ("train", "held_out")]


def _columns(
    units: SplitUnits,
    label: Int64[np.ndarray, " pair"],
    effects: Sequence[PairEffect],
    resamples: Float64[np.ndarray, "resample video"] | None,
) -> Iterator[dict[str, Any]]:
    """The columns of some pairs on one split, with intervals where videos are resampled."""
    n_positive = units.n_positive[:, label].T.astype(np.float64)
    n_negative = units.n_negative_of(label).T.astype(np.float64)
    within = np.stack([effect.within for effect in effects])
    unknown = np.full(len(effects), np.nan)
    intervals = (unknown, unknown), (unknown, unknown)
    if resamples is not None:
        wins = np.stack([effect.positive_wins for effect in effects])
        losses = np.stack([effect.negative_losses for effect in effects])
        intervals = (
            auroc_interval(wins, losses, n_positive, n_negative, resamples),
            mean_interval(within, resamples),
        )
    for pair, effect in enumerate(effects):
        measured = within[pair][~np.isnan(within[pair])]
        positives, negatives = int(n_positive[pair].sum()), int(n_negative[pair].sum())
        yield {
            "auroc": effect.auroc,
            "auroc_low": float(intervals[0][0][pair]),
            "auroc_high": float(intervals[0][1][pair]),
            "auroc_background": effect.auroc_background,
            "within_video_auroc": float(measured.mean()) if len(measured) else float("nan"),
            "within_low": float(intervals[1][0][pair]),
            "within_high": float(intervals[1][1][pair]),
            "ap": effect.precision,
            "base_rate": positives / max(positives + negatives, 1),
            "f1": effect.f1,
            "threshold": effect.threshold,
            "n_positive": positives,
            "n_negative": negatives,
            "n_videos": len(measured),
            "n_videos_positive": int((n_positive[pair] > 0).sum()),
            "videos_share": float((measured > TELLS).mean()) if len(measured) else float("nan"),
            "hidden_share": float(units.n_hidden[label[pair]]) / max(positives, 1),
        }


def within_p_value(within: Float64[np.ndarray, " video"]) -> float:
    """One-sided p-value of the mean within-video AUROC being above ½, over videos; 1 with fewer than two of them.

    Source: Student's t test.
    """
    known = within[~np.isnan(within)]
    if len(known) < 2:
        return 1.0
    error = known.std(ddof=1) / np.sqrt(len(known))
    difference = float(known.mean()) - 0.5
    if error < 1e-12:  # all alike: the sign decides, as far as this many videos can
        return float(0.5 ** len(known)) if difference > 0 else 1.0
    return float(stats.t.sf(difference / error, len(known) - 1))
