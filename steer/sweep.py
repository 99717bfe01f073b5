"""The exact ablation of every latent on the train videos, one at a time, the most promising first.

    parts/screened.parquet      every latent and item where it fires, with the gradient's estimate
    parts/sweep-K.parquet       the same rows of lot K of the latents, run exactly
    sweep.parquet               all of them together, when the budget has ended or every latent is done

A killed sweep goes on with the first lot that is not there, and the time that the others took counts. What the sweep
finds chooses what is confirmed on held-out videos.
"""

from __future__ import annotations

import itertools
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ask.answers import changes
from ask.cases import Case, edited_logits
from collect.artefact.folder import read_object, read_table, write_json, write_table
from collect.errors import UserError
from steer.codes import CodedCases, VideoCodes
from steer.effects import Editor
from steer.tables import SWEEP

logger = logging.getLogger(__name__)

LATENTS_AT_ONCE = 16
"""Latents of one lot: what is lost when a sweep is killed, and how finely it keeps its budget."""
EXACT_COLUMNS = ("delta_margin", "delta_accuracy", "delta_expected_count")


def screened_rows(
    case: Case, codes: VideoCodes, norms: Float[Tensor, " d_sae"], estimates: Sequence[Float[Tensor, " d_sae"]]
) -> pd.DataFrame:
    """Rows of sweep.parquet for one video, before anything is run.

    Args:
        case: the video with its questions.
        codes: activations of its visual tokens.
        norms: norm of each latent's decoder direction.
        estimates: estimated change of each item's margin by the ablation of each latent.
    """
    size = len(norms)
    n_tokens = torch.bincount(codes.latent, minlength=size)
    written = torch.bincount(codes.latent, weights=(codes.value.abs() * norms[codes.latent]).double(), minlength=size)
    active = n_tokens.nonzero()[:, 0]
    latents = active.cpu().numpy()
    columns = {
        "latent": latents,
        "n_tokens_edited": n_tokens[active].cpu().numpy(),
        "mean_norm": (written[active] / n_tokens[active]).cpu().numpy(),
    }
    frames = [
        pd.DataFrame(
            {
                **columns,
                "item": item.item_id,
                "video_id": item.video_id,
                "subject": item.subject,
                "counting": item.counting,
                "method": "screened",
                **dict.fromkeys(EXACT_COLUMNS, np.nan),
                "attribution": estimate[active].double().cpu().numpy(),
            }
        )
        for item, estimate in zip(case.items, estimates, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def order_of(screened: pd.DataFrame) -> list[int]:
    """All latents of a screen, the most promising first.

    Subjects give their latents by |attribution|, in turns and in proportion to their questions: a subject with twice
    the questions gives two latents where another gives one.
    """
    counting = screened[screened["counting"]]
    size = counting.groupby(["subject", "latent"], sort=True)["attribution"].sum().abs()
    rank = size.groupby("subject").rank(method="first", ascending=False)
    n_items = counting.groupby("subject")["item"].nunique()
    table = pd.DataFrame({"turn": rank / n_items.reindex(rank.index, level="subject"), "size": size}).reset_index()
    first = table.sort_values(["turn", "size", "latent"], ascending=[True, False, True], kind="stable")
    found = [int(latent) for latent in first["latent"].drop_duplicates()]
    return found + sorted({int(latent) for latent in screened["latent"]} - set(found))


def sweep(folder: Path, editor: Editor, cases: CodedCases, screened: pd.DataFrame, budget_s: float) -> pd.DataFrame:
    """Ablate latent after latent on the train videos until all are done or the budget ends; write sweep.parquet.

    Args:
        folder: of the steer stage.
        editor: the model and the SAE.
        cases: the videos with their questions.
        screened: rows of all latents with `method` screened.
        budget_s: seconds that the sweep may take, those of earlier calls included.

    Returns:
        sweep.parquet.
    """
    done = folder / "sweep.parquet"
    if (found := _read(done)) is not None:
        logger.info("%s holds the sweep already", folder)
        return found
    parts, order = folder / "parts", order_of(screened)
    lots = [order[start : start + LATENTS_AT_ONCE] for start in range(0, len(order), LATENTS_AT_ONCE)]
    by_latent = screened.groupby("latent", sort=False)["video_id"].unique()
    fires = {latent: set(videos) for latent, videos in by_latent.items()}
    spent, exact = _spent(parts), list[pd.DataFrame]()
    with tqdm(total=sum(len(fires[latent]) for latent in order), desc="sweep", unit="edit") as progress:
        for number, lot in enumerate(lots):
            path = parts / f"sweep-{number}.parquet"
            rows = _read(path)
            if rows is None or set(rows["latent"]) != set(lot):
                if spent >= budget_s:
                    break
                started = time.monotonic()
                rows = _lot(editor, cases, screened[screened["latent"].isin(lot)], progress)
                write_table(path, rows, SWEEP)
                spent += time.monotonic() - started
                write_json(parts / "sweep.json", {"spent_s": spent})
            else:
                progress.update(sum(len(fires[latent]) for latent in lot))
            exact.append(rows)
    table = _joined(screened, exact)
    n_exact = sum(map(len, lots[: len(exact)]))
    logger.info("%d of %d active latents were ablated exactly on the train videos", n_exact, len(order))
    write_table(done, table, SWEEP)
    return table


def _lot(editor: Editor, cases: CodedCases, screened: pd.DataFrame, progress: tqdm[NoReturn]) -> pd.DataFrame:
    """Run the latents of one lot on every video in which they fire."""
    frames: list[pd.DataFrame] = []
    for video_id, rows in screened.groupby("video_id", sort=True):
        case, codes = cases[str(video_id)]
        latents = sorted({int(latent) for latent in rows["latent"]})
        frames.append(_ablated(editor, case, codes, latents, rows))
        progress.update(len(latents))
    return pd.concat(frames, ignore_index=True)


def _ablated(editor: Editor, case: Case, codes: VideoCodes, latents: Sequence[int], rows: pd.DataFrame) -> pd.DataFrame:
    """One video's rows with the exact effects of some latents."""
    logits, mass = edited_logits(editor.model, case, ablations(editor, codes, latents), editor.batch_size)
    found = changes(case.logits, case.mass, logits, mass, case.correct, case.values)
    items = [item.item_id for item in case.items]
    exact = pd.DataFrame(
        {
            "latent": np.repeat(np.array(latents), len(items)),
            "item": items * len(latents),
            **{name: getattr(found, name).double().cpu().numpy().reshape(-1) for name in EXACT_COLUMNS},
        }
    )
    kept = rows.drop(columns=list(EXACT_COLUMNS)).assign(method="exact")
    return kept.merge(exact, on=["latent", "item"], how="left", validate="one_to_one")


def ablations(editor: Editor, codes: VideoCodes, latents: Sequence[int]) -> Iterator[Float[Tensor, "token d_in"]]:
    """What the ablation of each latent adds to the residuals of a video's visual tokens."""
    decoder = editor.sae.W_dec
    for latent in latents:
        own = codes.latent == latent
        change = torch.zeros(codes.n_tokens, decoder.shape[1], device=decoder.device)
        change[codes.token[own]] = -codes.value[own, None] * decoder[latent].float()
        yield change


def _joined(screened: pd.DataFrame, exact: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All rows by latent and item, those that were run exactly in place of the screen's."""
    run = set(itertools.chain.from_iterable(frame["latent"] for frame in exact))
    left = screened[~screened["latent"].isin(run)]
    table = pd.concat([*exact, left], ignore_index=True) if exact else left
    return table.sort_values(["latent", "item"], kind="stable", ignore_index=True)[SWEEP.names]


def _spent(parts: Path) -> float:
    path = parts / "sweep.json"
    try:
        return float(read_object(path, "the sweep goes on without it")["spent_s"]) if path.exists() else 0.0
    except (UserError, KeyError, TypeError, ValueError, json.JSONDecodeError):
        return 0.0


def _read(path: Path) -> pd.DataFrame | None:
    """A table of an earlier call; None where it is not there or not whole."""
    if not path.exists():
        return None
    try:
        return read_table(path, SWEEP)
    except UserError as error:
        logger.warning("%s: it is made again", error)
        return None
