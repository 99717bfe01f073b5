"""One pass over all videos: the unedited model's answers, the baselines beside them, and the screen of all latents."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float32, Int64
from tqdm import tqdm

from ask.baselines import baselines, question_only_answers
from ask.cases import Case, item_rows
from ask.tables import BASELINES, ITEMS
from collect.artefact.folder import read_table, write_table
from collect.errors import UserError
from features.division import ALONE, Division
from steer.codes import CodedCases, VideoCodes
from steer.opened import Inputs
from steer.reference import Reference
from steer.screens.gradient import Attribution, RunningMoments, attribution, margin_gradients, standardise
from steer.sweep import screened_rows
from steer.tables import SCREEN, SWEEP

logger = logging.getLogger(__name__)

POOLS = ("train", "held_out", "noncounting")
"""Questions over which estimates are averaged per video."""


def answer_and_screen(
    folder: Path, inputs: Inputs, cases: CodedCases, usual: Reference, division: Division = ALONE
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answer every item and screen every latent; write items, baselines and screen.parquet, or read them if there.

    Args:
        folder: of the steer stage.
        inputs: what the stage reads.
        cases: the videos with their questions.
        usual: firing rates at the site.
        division: the processes that share the videos.

    Returns:
        screen.parquet; and the screen by train item, as rows of sweep.parquet.
    """
    names = ("items.parquet", "baselines.parquet", "screen.parquet", "parts/screened.parquet")
    done = [folder / name for name in names]
    schemas = dict(zip(done, (ITEMS, BASELINES, SCREEN, SWEEP), strict=True))
    if division.agree(lambda: _read_all(schemas) is not None):
        logger.info("%s holds the screen already", folder)
    else:
        videos = cases.cases.videos
        own = _screened(inputs, cases, [videos[place] for place in division.share(len(videos))])
        # Every process leaves its rows, and the first one joins them in the order of the videos.
        part = folder / "parts" / f"screened-{division.place}-of-{division.n}.parquet"
        write_table(part, own.by_item, SWEEP)
        rows = division.join_json(own.rows)
        pooled = division.join(np.stack(own.pooled) if own.pooled else np.zeros((0, len(POOLS), inputs.sae.d_sae)))
        n_active = division.total(own.n_active.astype(np.float64)).astype(np.int64)
        if division.is_first:
            moments = {name: RunningMoments.zeros(inputs.sae.d_sae) for name in POOLS}
            for of_video in pooled:
                for name, estimate in zip(POOLS, of_video, strict=True):
                    if not np.isnan(estimate).any():
                        moments[name].add(torch.from_numpy(estimate))
            parts = [part.with_name(f"screened-{place}-of-{division.n}.parquet") for place in range(division.n)]
            by_item = pd.concat([read_table(path, SWEEP) for path in parts], ignore_index=True)
            answered = pd.DataFrame(rows)
            write_table(done[0], answered, ITEMS)
            write_table(done[1], baselines(inputs.asked.items, answered), BASELINES)
            write_table(done[2], _screen_table(moments, n_active, usual), SCREEN)
            write_table(done[3], by_item, SWEEP)
        division.meet()
        part.unlink(missing_ok=True)
    found = _read_all(schemas)
    assert found is not None, "what was just written is not whole"
    return found[2], found[3]


@dataclass(kw_only=True, eq=False)
class _Screened:
    """What one process finds on its videos."""

    rows: list[dict[str, Any]]
    """Of items.parquet."""
    by_item: pd.DataFrame
    """Rows of sweep.parquet."""
    pooled: list[Float32[np.ndarray, "pool d_sae"]]
    """Per video, the estimates over the questions of each pool; NaN where it has none."""
    n_active: Int64[np.ndarray, " d_sae"]


def _screened(inputs: Inputs, cases: CodedCases, videos: Sequence[str]) -> _Screened:
    """Answer the items of some videos and screen every latent on them."""
    d_sae = inputs.sae.d_sae
    norms = inputs.sae.decoder_norm.float()
    learned = question_only_answers(inputs.asked.items)
    frames: list[pd.DataFrame] = []
    found = _Screened(rows=[], by_item=pd.DataFrame(), pooled=[], n_active=np.zeros(d_sae, dtype=np.int64))
    for video_id in tqdm(cases.cases.clips.in_turn(videos), total=len(videos), desc="screen", unit="video"):
        case, codes = cases[video_id]
        found.rows += item_rows(case, learned)
        other = [place for place, item in enumerate(case.items) if not item.counting]
        if case.items[0].held_out:
            estimates = _estimates(inputs, cases, case, codes, [case.counting, other])
            pooled = {
                name: None if each is None else each.estimate
                for name, each in zip(("held_out", "noncounting"), estimates, strict=True)
            }
        else:
            estimates = _estimates(inputs, cases, case, codes, [[place] for place in range(len(case.items))])
            by_item = [each for each in estimates if each is not None]
            frames.append(screened_rows(case, codes, norms, by_item))
            pooled = {
                name: torch.stack([by_item[place].estimate for place in places]).mean(dim=0) if places else None
                for name, places in (("train", case.counting), ("noncounting", other))
            }
        nothing = np.full(d_sae, np.nan, dtype=np.float32)
        each_pool = [pooled.get(name) for name in POOLS]
        found.pooled.append(np.stack([nothing if each is None else each.cpu().numpy() for each in each_pool]))
        found.n_active[codes.latent.unique().cpu().numpy()] += 1
    found.by_item = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SWEEP.names)
    return found


def _estimates(
    inputs: Inputs, cases: CodedCases, case: Case, codes: VideoCodes, groups: Sequence[Sequence[int]]
) -> list[Attribution | None]:
    """What the gradient says of every latent's ablation and the mean margin of each group of a video's items."""
    gradients = margin_gradients(cases.cases.model, case, groups)
    return [None if each is None else attribution(codes, inputs.sae.W_dec, each) for each in gradients]


def _read_all(schemas: Mapping[Path, pa.Schema]) -> list[pd.DataFrame] | None:
    """The tables of an earlier run; None unless all of them are there and whole."""
    if not all(path.exists() for path in schemas):
        return None
    try:
        return [read_table(path, schema) for path, schema in schemas.items()]
    except UserError as error:
        logger.warning("%s: the screen is made again", error)
        return None


def _screen_table(moments: dict[str, RunningMoments], n_active: np.ndarray, usual: Reference) -> pd.DataFrame:
    alive = n_active > 0
    columns: dict[str, Any] = {
        "latent": np.arange(len(n_active)),
        "status": np.where(alive, "screened", "never active"),
        "n_videos_active": n_active,
        "firing_rate": usual.firing_rate.double().cpu().numpy(),
        "mean_active": usual.mean_active.double().where(usual.firing_rate > 0, torch.nan).cpu().numpy(),
        "attribution_noncounting": np.where(alive, moments["noncounting"].mean, np.nan),
        "selected_by": None,
    }
    for split in ("train", "held_out"):
        mean = moments[split].mean
        z = standardise(mean, moments[split].standard_error, alive)
        columns[f"attribution_{split}"] = np.where(alive, mean, np.nan)
        columns[f"z_{split}"] = np.where(alive & ~np.isnan(mean), z, np.nan)
    return pd.DataFrame(columns)
