"""The blind test: which of two moments belongs to a latent that only examples show, for a trained SAE and a baseline.

A trial shows four moments at which the latent fires most and four at which it is silent, and asks which of two others
it fires at. Trials of the trained SAE and of its baseline, whose latents fire about as often, come in one mixed order.

Source: Zimmermann, Klein and Brendel, "Scale Alone Does not Improve Mechanistic Interpretability in Vision Models",
2023, whose task this is, with moments of videos in place of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from browse.gathering.grouped import records
from browse.gathering.media_names import clip_name, still_name
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.rounding import rounded
from browse.names import BASELINE_SUFFIX
from browse.shards import Shard

N_LATENTS = 20
"""Of each of the two SAEs."""
N_REFERENCES = 4
N_SHOWN = 2 * N_REFERENCES
"""Moments of different videos that a latent needs: the references, and as many to draw the question from."""
_STREAM = 11


def blind_shards(sae: OpenedSae, key: str) -> tuple[Shard, Shard]:
    """The shards `S/blind` and `S/blind-key`.

    Args:
        sae: a trained SAE.
        key: its name in shards.
    """
    baseline = sae.baseline
    if baseline is None:
        why = "The SAE was not compared with a baseline: run `video-sae features` with --baseline."
        return Shard(meta={"trials": [], "why": why}), Shard(meta={"salt": "", "trials": []})
    rng = np.random.default_rng([sae.seed, _STREAM])
    chosen = _matched(_usable(sae), _usable(baseline), rng)
    sources = [("trained", sae, key, latent) for latent, _ in chosen]
    sources += [("baseline", baseline, f"{key}{BASELINE_SUFFIX}", latent) for _, latent in chosen]
    salt = hashlib.sha256(rng.bytes(32)).hexdigest()[:32]
    trials: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for number, place in enumerate(rng.permutation(len(sources)).tolist()):
        source, owner, name, latent = sources[place]
        made = _trial(owner, latent, rng)
        if made is None:
            continue
        positive, negative, query = made
        answer = int(rng.integers(2))
        secret = hashlib.sha256(f"{salt}:{number}:{answer}:{source}".encode()).hexdigest()
        trials.append(
            {
                "id": str(number),
                "reference_positive": positive,
                "reference_negative": negative,
                "query": query if answer == 0 else query[::-1],
                "key": secret,
            }
        )
        answers.append({"id": str(number), "answer": answer, "source": source, "sae": name, "latent": latent})
    why = None if trials else "No latent of both SAEs fires in enough videos."
    return Shard(meta={"trials": trials, "why": why}), Shard(meta={"salt": salt, "trials": answers})


def _usable(sae: OpenedSae) -> pd.DataFrame:
    """The latents that fire in enough videos, with the tokens at which they do."""
    tops = sae.moments(range(sae.n_latents))
    tops = tops[tops["group"] == "top"].groupby("latent").size()
    latents = tops.index[tops >= N_SHOWN].to_numpy(dtype=np.int64)
    return pd.DataFrame({"latent": latents, "n": sae.codes.n_active()[latents]})


def _matched(ours: pd.DataFrame, theirs: pd.DataFrame, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Some latents of one SAE, each with the one of the other that fires most nearly as often."""
    n = min(N_LATENTS, len(ours), len(theirs))
    left = theirs.copy()
    pairs: list[tuple[int, int]] = []
    for place in rng.choice(len(ours), size=n, replace=False).tolist() if n else []:
        wanted = np.log(float(ours["n"].iloc[place]))
        nearest = int(np.abs(np.log(left["n"].to_numpy(dtype=np.float64)) - wanted).argmin())
        pairs.append((int(ours["latent"].iloc[place]), int(left["latent"].iloc[nearest])))
        left = left.drop(index=left.index[nearest])
    return pairs


def _trial(
    sae: OpenedSae, latent: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]] | None:
    """References at which a latent fires and at which it is silent, and one more of each; None without silent ones."""
    run = sae.run
    moments = sae.moments(range(latent, latent + 1))
    firing = records(moments[moments["group"] == "top"])[:N_SHOWN]
    order = rng.permutation(len(firing)).tolist()
    silent = _silent(sae, latent, [firing[place] for place in order[: N_REFERENCES + 1]], rng)
    if len(silent) <= N_REFERENCES:
        return None
    shown = [
        _hidden(run, str(moment["video_id"]), int(moment["t_first"]), int(moment["t_last"]), int(moment["t"]))
        for moment in (firing[place] for place in order[: N_REFERENCES + 1])
    ]
    return shown[:N_REFERENCES], silent[:N_REFERENCES], [shown[N_REFERENCES], silent[N_REFERENCES]]


def _silent(
    sae: OpenedSae, latent: int, like: Sequence[dict[str, Any]], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """As many moments, as long as those given, of other videos in which the latent does not fire at all."""
    run = sae.run
    tokens, _ = sae.codes.column(latent)
    starts = run.steps.row_start
    fires = np.unique(np.searchsorted(starts, tokens, side="right") - 1)
    quiet = np.setdiff1d(np.arange(len(starts)), fires)
    found: list[dict[str, Any]] = []
    for moment, place in zip(like, rng.permutation(quiet).tolist(), strict=False):
        record = run.videos[place]
        length = min(int(moment["t_last"]) - int(moment["t_first"]) + 1, record.grid.n_t)
        first = int(rng.integers(record.grid.n_t - length + 1))
        found.append(_hidden(run, record.video_id, first, first + length - 1, first + length // 2))
    return found


def _hidden(run: OpenedRun, video_id: str, first: int, last: int, shown: int) -> dict[str, Any]:
    """A moment without anything that tells whether, or where, a latent fires."""
    grid = run.record_of[video_id].grid
    has_media = run.has_media(video_id)
    return {
        "video": video_id,
        "t0": first,
        "t1": last,
        "start_s": rounded(grid.spans_s[first, 0]),
        "stop_s": rounded(grid.spans_s[last, 1]),
        "media": clip_name(video_id) if has_media else None,
        "still": still_name(video_id, shown) if has_media else None,
    }
