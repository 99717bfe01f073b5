"""Sets: how few latents destroy a task, or restore it, and which latents stand in for each other.

A set's share is measured between two ends: the unedited model, and the model without any latent, whose visual tokens
keep the SAE's error alone. Sets grow greedily on train videos, and what they do is reported on held-out ones. Several
subspaces can play one role, so pairs whose joint ablation costs more than the sum of the two are listed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ask.cases import Case
from steer.codes import VideoCodes
from steer.mechanism.matched import Bench, Estimate, Real, change_of, estimate, video_draws, written

MOST_LATENTS = 6
"""Latents of the largest set."""
CANDIDATES = 8
"""Latents that a set may take, and whose pairs are tried."""
MOST_TRAIN_VIDEOS = 12
"""Train videos on which sets grow."""


def candidates(by_latent: pd.DataFrame, subject: str) -> list[int]:
    """Latents whose ablation costs a subject's questions most on the train videos; screened ones by their estimate.

    Args:
        by_latent: latent_subjects.parquet.
        subject: the subject.
    """
    own = by_latent[(by_latent["scope"] == "subject") & (by_latent["name"] == subject)]
    effect = own["delta_margin"].fillna(own["attribution"]).astype(np.float64)
    ranked = own.assign(effect=effect)[effect < 0].sort_values(["effect", "latent"], kind="stable")
    return [int(latent) for latent in ranked["latent"].head(CANDIDATES)]


class _Margins:
    """Changes of a subject's margins per video by ablations of sets of latents, each run once."""

    def __init__(self, bench: Bench, subject: str, most_videos: int | None = None) -> None:
        self._bench = bench
        self._subject = subject
        self.seed = bench.seed
        self.videos = list(bench.asked(subject))[:most_videos]
        self._found: dict[tuple[bool, tuple[int, ...]], Real] = {}

    def __call__(self, sets: Sequence[tuple[int, ...]], *, kept: bool = False) -> list[Real]:
        """Change per video by the ablation of each set; where `kept`, by that of all latents but the set's."""
        new = [each for each in dict.fromkeys(sets) if (kept, each) not in self._found]
        if new:
            columns = [self._video(video_id, new, kept) for video_id in self.videos]
            for each, values in zip(new, np.stack(columns, axis=1), strict=True):
                self._found[kept, each] = values
        return [self._found[kept, each] for each in sets]

    def _video(self, video_id: str, sets: Sequence[tuple[int, ...]], kept: bool) -> Real:
        case, codes, _ = self._bench.matched(video_id, self._subject)
        decoder = self._bench.editor.sae.W_dec
        every = written(codes, decoder) if kept else None
        changes = [set_ablation(case, codes, each, decoder, every) for each in sets]
        places = [place for place, change in enumerate(changes) if bool(change.any())]
        out = np.zeros(len(sets))
        if places:
            out[places] = self._bench.shifts(case, [changes[place] for place in places]).margin
        return out


def set_ablation(
    case: Case,
    codes: VideoCodes,
    latents: Sequence[int],
    decoder: Float[Tensor, "d_sae d_in"],
    every: Float[Tensor, "token d_in"] | None = None,
) -> Float[Tensor, "token d_in"]:
    """What the ablation of some latents adds; with `every`, what all latents write, that of all others."""
    if not latents:
        own = torch.zeros_like(case.sequences.visual, dtype=torch.float32)
    else:
        own = change_of(codes, latents, torch.zeros(codes.n_tokens, len(latents), device=decoder.device), decoder)
    return own if every is None else -every - own


def set_rows(train: Bench, held_out: Bench, subject: str, by_latent: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of sets.parquet for one subject: per aim and size, the set that grew on train videos."""
    among = candidates(by_latent, subject)
    grown, judged = _Margins(train, subject, MOST_TRAIN_VIDEOS), _Margins(held_out, subject)
    if not among or not grown.videos or not judged.videos:
        return []
    rows: list[dict[str, Any]] = []
    for aim in ("destroy", "restore"):
        kept = aim == "restore"
        chosen: tuple[int, ...] = ()
        for _ in range(min(MOST_LATENTS, len(among))):
            options = [tuple(sorted((*chosen, latent))) for latent in among if latent not in chosen]
            means = [float(values.mean()) for values in grown(options, kept=kept)]
            chosen = options[int(np.argmax(means) if kept else np.argmin(means))]
            rows.append(
                {
                    "subject": subject,
                    "aim": aim,
                    "size": len(chosen),
                    "latents": list(chosen),
                    "train_share": _share(grown, chosen, kept).mean,
                    "n_train_videos": len(grown.videos),
                    "n_videos": len(judged.videos),
                    **_share(judged, chosen, kept).columns("share"),
                }
            )
    return rows


def _share(margins: _Margins, latents: tuple[int, ...], kept: bool) -> Estimate:
    """Share of the way from the model to that without latents; restored: of the way back."""
    (own,), (nothing,) = margins([latents], kept=kept), margins([()], kept=True)
    numbers = np.stack([own - nothing if kept else own, -nothing if kept else nothing])
    shares = _ratio(numbers[:, video_draws(len(own), margins.seed)].mean(axis=2))
    known = shares[~np.isnan(shares)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    share = _ratio(numbers.mean(axis=1)[:, None])[0]
    return Estimate(mean=float(share), low=float(low), high=float(high), n=len(own))


def _ratio(pairs: Real) -> Real:
    """First row over second; NaN where that is zero."""
    return np.divide(pairs[0], pairs[1], out=np.full(pairs.shape[1], np.nan), where=pairs[1] != 0)


def pair_rows(train: Bench, held_out: Bench, subject: str, by_latent: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of pairs.parquet for one subject: joint ablations against the sum of the two, by the excess on train."""
    among = candidates(by_latent, subject)
    pairs = list(itertools.combinations(sorted(among), 2))
    grown, judged = _Margins(train, subject, MOST_TRAIN_VIDEOS), _Margins(held_out, subject)
    if not pairs or not grown.videos or not judged.videos:
        return []
    rows: list[dict[str, Any]] = []
    found: list[tuple[list[Real], list[Real]]] = []
    for margins in (grown, judged):
        joint = margins(pairs)
        single = dict(zip(among, margins([(latent,) for latent in among]), strict=True))
        found.append((joint, [single[one] + single[other] for one, other in pairs]))
    for place, (one, other) in enumerate(pairs):
        (train_joint, train_sum), (joint, total) = ((each[0][place], each[1][place]) for each in found)
        excess = estimate(joint - total, held_out.seed)
        train_excess = float((train_joint - train_sum).mean())
        rows.append(
            {
                "subject": subject,
                "one": one,
                "other": other,
                "n_videos": len(judged.videos),
                "train_excess": train_excess,
                **estimate(joint, held_out.seed).columns("joint"),
                "sum": float(total.mean()),
                **excess.columns("excess"),
                "stand_in": train_excess < 0 and excess.sign < 0,
            }
        )
    return sorted(rows, key=lambda row: (row["train_excess"], row["one"], row["other"]))
