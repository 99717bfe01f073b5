"""One pass over all videos: the unedited model's answers, the baselines beside them, and the screen of all latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from tqdm import tqdm

from ask.answering import item_rows
from ask.baselines import baselines, question_only_answers
from ask.tables import BASELINES, ITEMS
from collect.artefact.folder import read_table, write_table
from collect.errors import UserError
from steer.codes import CodedCases
from steer.opened import Inputs
from steer.reference import Reference
from steer.screen import RunningMoments, attribution, margin_gradients, standardise
from steer.tables import SCREEN
from steer.targets import Target

logger = logging.getLogger(__name__)


def answer_and_screen(
    folder: Path,
    inputs: Inputs,
    cases: CodedCases,
    usual: Reference,
    choose: Callable[[pd.DataFrame], Sequence[Target]],
) -> pd.DataFrame:
    """Answer every item and screen every latent; write items, baselines and screen.parquet, or read them if there.

    Args:
        folder: of the steer stage.
        inputs: what the stage reads.
        cases: the videos with their questions.
        usual: firing rates at the site.
        choose: selects targets from the screen; the choice is noted in its column `selected_by`.

    Returns:
        screen.parquet.
    """
    done = [folder / name for name in ("items.parquet", "baselines.parquet", "screen.parquet")]
    found = _read_all(dict(zip(done, (ITEMS, BASELINES, SCREEN), strict=True)))
    if found is not None:
        logger.info("%s holds the screen already", folder)
        return found[-1]
    d_sae = inputs.sae.d_sae
    moments = {name: RunningMoments.zeros(d_sae) for name in ("train", "held_out", "control")}
    n_active = np.zeros(d_sae, dtype=np.int64)
    learned = question_only_answers(inputs.asked.items)
    rows: list[dict[str, Any]] = []
    for video_id in tqdm(cases.cases.videos, desc="screen", unit="video"):
        case, codes = cases[video_id]
        rows += item_rows(case, learned)
        split = "held_out" if case.items[0].held_out else "train"
        other = [place for place, item in enumerate(case.items) if not item.counting]
        gradients = margin_gradients(cases.cases.model, case, [case.counting, other])
        for name, gradient in zip((split, "control"), gradients, strict=True):
            if gradient is not None:
                moments[name].add(attribution(codes, inputs.sae.W_dec, gradient))
        n_active[codes.latent.unique().cpu().numpy()] += 1
    answered = pd.DataFrame(rows)
    screen = _screen_table(moments, n_active, usual)
    reasons = {target.latents[0]: target.selected_by for target in choose(screen) if len(target.latents) == 1}
    screen["selected_by"] = screen["latent"].map(reasons)
    write_table(done[0], answered, ITEMS)
    write_table(done[1], baselines(inputs.asked.items, answered), BASELINES)
    write_table(done[2], screen, SCREEN)
    return screen


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
        "attribution_control": np.where(alive, moments["control"].mean, np.nan),
        "selected_by": None,
    }
    for split in ("train", "held_out"):
        mean = moments[split].mean
        z = standardise(mean, moments[split].standard_error, alive)
        columns[f"attribution_{split}"] = np.where(alive, mean, np.nan)
        columns[f"z_{split}"] = np.where(alive & ~np.isnan(mean), z, np.nan)
    return pd.DataFrame(columns)
