"""One pass over all videos: the unedited model's answers, the baselines beside them, and the screen of all latents."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ask.baselines import baselines, question_only_answers
from ask.cases import Case, item_rows
from ask.tables import BASELINES, ITEMS
from collect.artefact.folder import read_table, write_table
from collect.errors import UserError
from steer.codes import CodedCases, VideoCodes
from steer.opened import Inputs
from steer.reference import Reference
from steer.screens.gradient import RunningMoments, attribution, margin_gradients, standardise
from steer.sweep import screened_rows
from steer.tables import SCREEN, SWEEP

logger = logging.getLogger(__name__)


def answer_and_screen(
    folder: Path,
    inputs: Inputs,
    cases: CodedCases,
    usual: Reference,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answer every item and screen every latent; write items, baselines and screen.parquet, or read them if there.

    Args:
        folder: of the steer stage.
        inputs: what the stage reads.
        cases: the videos with their questions.
        usual: firing rates at the site.

    Returns:
        screen.parquet; and the screen by train item, as rows of sweep.parquet.
    """
    names = ("items.parquet", "baselines.parquet", "screen.parquet", "parts/screened.parquet")
    done = [folder / name for name in names]
    found = _read_all(dict(zip(done, (ITEMS, BASELINES, SCREEN, SWEEP), strict=True)))
    if found is not None:
        logger.info("%s holds the screen already", folder)
        return found[2], found[3]
    d_sae = inputs.sae.d_sae
    norms = inputs.sae.decoder_norm.float()
    moments = {name: RunningMoments.zeros(d_sae) for name in ("train", "held_out", "noncounting")}
    n_active = np.zeros(d_sae, dtype=np.int64)
    learned = question_only_answers(inputs.asked.items)
    rows: list[dict[str, Any]] = []
    frames: list[pd.DataFrame] = []
    for video_id in tqdm(cases.cases.videos, desc="screen", unit="video"):
        case, codes = cases[video_id]
        rows += item_rows(case, learned)
        other = [place for place, item in enumerate(case.items) if not item.counting]
        if case.items[0].held_out:
            estimates = _estimates(inputs, cases, case, codes, [case.counting, other])
            pooled = {"held_out": estimates[0], "noncounting": estimates[1]}
        else:
            estimates = _estimates(inputs, cases, case, codes, [[place] for place in range(len(case.items))])
            by_item = [each for each in estimates if each is not None]
            frames.append(screened_rows(case, codes, norms, by_item))
            pooled = {
                name: torch.stack([by_item[place] for place in places]).mean(dim=0) if places else None
                for name, places in (("train", case.counting), ("noncounting", other))
            }
        for name, estimate in pooled.items():
            if estimate is not None:
                moments[name].add(estimate)
        n_active[codes.latent.unique().cpu().numpy()] += 1
    answered = pd.DataFrame(rows)
    screen = _screen_table(moments, n_active, usual)
    by_item = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=SWEEP.names)
    write_table(done[0], answered, ITEMS)
    write_table(done[1], baselines(inputs.asked.items, answered), BASELINES)
    write_table(done[2], screen, SCREEN)
    write_table(done[3], by_item, SWEEP)
    return screen, by_item


def _estimates(
    inputs: Inputs, cases: CodedCases, case: Case, codes: VideoCodes, groups: Sequence[Sequence[int]]
) -> list[Float[Tensor, " d_sae"] | None]:
    """Estimated effect of every latent's ablation on the mean margin of each group of a video's items."""
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
