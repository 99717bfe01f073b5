"""The exact ablation of every latent on the train videos, one at a time, the most promising first.

    parts/screened.parquet      every latent and item where it fires, with the gradient's estimate
    parts/screen-K.parquet      estimates of the second screen for video K (`steer.screens.by_video`)
    parts/sweep-K.parquet       the rows of lot K of the latents, run exactly
    parts/sweep.json            the seconds that these took
    sweep.parquet               all of them together, when the budget has ended or every latent is done

The gradient's screen has run on all videos. Where it pays, a second one runs on as many videos as a third of the budget
allows; the rest of it goes to exact runs: three of four latents are leaders of the screens, the fourth is drawn from
all, so that what the leaders leave out can be judged (`steer.screens.agreement`). A killed sweep goes on with the first
part that is not there, and the time that the others took counts.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ask.cases import Case
from collect.artefact.folder import write_table
from features.division import ALONE, Division
from steer.codes import VideoCodes
from steer.screens.budget import Budget, Job, read_whole
from steer.screens.by_video import order_of_videos, pick_screen, screen_videos
from steer.screens.passes import Passes, ablations
from steer.tables import ESTIMATES, SWEEP

logger = logging.getLogger(__name__)

LEADERS_AT_ONCE, DRAWN_AT_ONCE = 12, 4
"""Latents of one lot: what is lost when a sweep is killed, and how finely it keeps its budget."""
MOST_LOTS = 256
"""With more latents than these hold, lots are larger: every lot opens every video."""
MOST_DRAWN = 500
"""Latents after which no more are drawn at random."""
STRATA = 16
"""Groups of latents of like estimated effect, from which the random ones are drawn in turns."""
SCREEN_SHARE = 1 / 3
"""Share of the budget that the second screen may take."""
EXACT_COLUMNS = ("delta_margin", "delta_accuracy", "delta_expected_count")


def screened_rows(
    case: Case, codes: VideoCodes, norms: Float[Tensor, " d_sae"], estimates: Sequence[Float[Tensor, " d_sae"]]
) -> pd.DataFrame:
    """Rows of sweep.parquet for one video, before anything but the gradient is run.

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
    columns = {
        "latent": active.cpu().numpy(),
        "n_tokens_edited": n_tokens[active].cpu().numpy(),
        "mean_norm": (written[active] / n_tokens[active]).cpu().numpy(),
    }
    nothing = (*EXACT_COLUMNS, "direct_delta_margin", "masked_delta_margin")
    frames = [
        pd.DataFrame(
            {
                **columns,
                "item": item.item_id,
                "video_id": item.video_id,
                "subject": item.subject,
                "counting": item.counting,
                "method": "gradient",
                "chosen_as": None,
                **dict.fromkeys(nothing, np.nan),
                "attribution": estimate[active].double().cpu().numpy(),
            }
        )
        for item, estimate in zip(case.items, estimates, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


def order_of(screened: pd.DataFrame) -> list[int]:
    """All latents of the screens, the most promising first.

    Subjects give their latents by |estimate|, in turns and in proportion to their questions: a subject with twice the
    questions gives two latents where another gives one. Each screen gives its own, in the same turns.
    """
    counting = screened[screened["counting"].astype(bool)]
    n_items = counting.groupby("subject")["item"].nunique()
    tables: list[pd.DataFrame] = []
    for priority, column in enumerate(ESTIMATES.values()):
        known = counting.dropna(subset=column)
        size = known.groupby(["subject", "latent"], sort=True)[column].sum().abs()
        rank = size.groupby("subject").rank(method="first", ascending=False)
        turn = rank / n_items.reindex(rank.index, level="subject")
        tables.append(pd.DataFrame({"turn": turn, "size": size, "priority": priority}).reset_index())
    keys = ["turn", "priority", "size", "latent"]
    first = pd.concat(tables).sort_values(keys, ascending=[True, True, False, True], kind="stable")
    found = [int(latent) for latent in first["latent"].drop_duplicates()]
    return found + sorted({int(latent) for latent in screened["latent"]} - set(found))


def drawn_of(order: Sequence[int], seed: int) -> list[int]:
    """All latents in an order of which every beginning is a stratified random sample.

    Args:
        order: the latents, the most promising first; neighbours make up the strata.
        seed: of the draw.
    """
    generator = np.random.default_rng([seed, 1])
    strata = [generator.permutation(part) for part in np.array_split(np.array(order), STRATA)]
    rounds = itertools.zip_longest(*strata)
    return [int(latent) for each in rounds for latent in generator.permutation([x for x in each if x is not None])]


def lots_of(order: Sequence[int], drawn: Sequence[int]) -> list[list[int]]:
    """The latents in lots, each of leaders and of latents that are drawn.

    Args:
        order: all latents, the most promising first.
        drawn: all latents, in the order of the draw.
    """
    times = -(-len(order) // ((LEADERS_AT_ONCE + DRAWN_AT_ONCE) * MOST_LOTS)) if len(order) else 1
    taken: set[int] = set()
    n_drawn = 0

    def take(source: Sequence[int], n: int) -> list[int]:
        found = list(itertools.islice((latent for latent in source if latent not in taken), n))
        taken.update(found)
        return found

    lots: list[list[int]] = []
    while len(taken) < len(order):
        lot = take(order, times * LEADERS_AT_ONCE)
        some = take(drawn, min(times * DRAWN_AT_ONCE, MOST_DRAWN - n_drawn))
        n_drawn += len(some)
        lots.append(lot + some)
    return lots


def sweep(
    folder: Path, passes: Passes, screened: pd.DataFrame, budget_s: float, seed: int, division: Division = ALONE
) -> pd.DataFrame:
    """Ablate latent after latent on the train videos until all are done or the budget ends; write sweep.parquet.

    Args:
        folder: of the steer stage.
        passes: over the videos with their questions.
        screened: rows of all latents with the gradient's estimates.
        budget_s: seconds that the screen and the sweep may take, those of earlier calls included.
        seed: of the masks and of the random latents.
        division: the processes that share the work.

    Returns:
        sweep.parquet.
    """
    done = folder / "sweep.parquet"
    if division.agree(lambda: read_whole(done, SWEEP) is not None):
        logger.info("%s holds the sweep already", folder)
        found = read_whole(done, SWEEP)
        assert found is not None, "the sweep was whole a moment ago"
        return found
    parts = folder / "parts"
    budget = Budget(parts / "sweep.json", budget_s, division)
    screened = _with_screen(parts, passes, screened, budget, seed)
    order = order_of(screened)
    lots = lots_of(order, drawn_of(order, seed))
    fires = screened.groupby("latent", sort=False)["video_id"].nunique()

    def job(number: int, lot: list[int]) -> Job:
        return Job(
            path=parts / f"sweep-{number}.parquet",
            work=lambda: _lot(passes, screened[screened["latent"].isin(lot)]),
            is_own=lambda rows: set(rows["latent"]) == set(lot),
        )

    jobs = [job(number, lot) for number, lot in enumerate(lots)]
    with tqdm(total=int(fires.sum()), desc="sweep", unit="edit") as progress:
        n_done = budget.run(jobs, SWEEP, budget_s, lambda number: progress.update(int(fires[lots[number]].sum())))
    exact = [rows for each in jobs[:n_done] if (rows := read_whole(each.path, SWEEP)) is not None]
    assert len(exact) == n_done, "a table that was just written cannot be read"
    table = _joined(screened, exact, order, [latent for lot in lots[:n_done] for latent in lot])
    logger.info(
        "%d of %d active latents were ablated exactly on the train videos", sum(map(len, lots[:n_done])), len(order)
    )
    if division.is_first:
        write_table(done, table, SWEEP)
    division.meet()
    return table


def _with_screen(parts: Path, passes: Passes, screened: pd.DataFrame, budget: Budget, seed: int) -> pd.DataFrame:
    """The gradient's rows with the estimates of a second screen, where one pays."""
    if not len(screened) or budget.limit_s == 0:
        return screened
    name = budget.division.agree(lambda: pick_screen(passes, screened))
    if name is None:
        return screened
    until_s = SCREEN_SHARE * budget.limit_s
    found = screen_videos(parts, passes, name, screened, budget, until_s, seed)
    merged = screened.merge(found, on=["latent", "item"], how="left", validate="one_to_one")
    known = merged["estimate"].notna()
    merged[ESTIMATES[name]] = merged.pop("estimate")
    n_videos = merged["video_id"][known].nunique(), len(order_of_videos(screened))
    logger.info("the screen `%s` reached %d of %d train videos", name, *n_videos)
    return merged.assign(method=merged["method"].where(~known, name))


def _lot(passes: Passes, rows: pd.DataFrame) -> pd.DataFrame:
    """Run the latents of one lot on every video in which they fire."""
    frames = [_ablated(passes, str(video_id), own) for video_id, own in rows.groupby("video_id", sort=True)]
    return pd.concat(frames, ignore_index=True)


def _ablated(passes: Passes, video_id: str, rows: pd.DataFrame) -> pd.DataFrame:
    """One video's rows with the exact effects of some latents, and the direct ones beside them."""
    case, codes = passes.cases[video_id]
    latents = sorted({int(latent) for latent in rows["latent"]})
    edits = ablations(passes.editor, codes, latents)
    found = passes.total(video_id, edits)
    columns = {name: getattr(found, name) for name in EXACT_COLUMNS}
    if passes.shows_prefix(video_id) and rows["direct_delta_margin"].isna().any():
        columns["direct_delta_margin"] = passes.direct(video_id, edits)
    items = [item.item_id for item in case.items]
    exact = pd.DataFrame(
        {
            "latent": np.repeat(np.array(latents), len(items)),
            "item": items * len(latents),
            **{name: values.double().cpu().numpy().reshape(-1) for name, values in columns.items()},
        }
    )
    kept = rows.drop(columns=list(columns)).assign(method="exact")
    return kept.merge(exact, on=["latent", "item"], how="left", validate="one_to_one")[rows.columns]


def _joined(
    screened: pd.DataFrame, exact: Sequence[pd.DataFrame], order: Sequence[int], run: Sequence[int]
) -> pd.DataFrame:
    """All rows by latent and item, those that were run exactly in place of the screens'."""
    left = screened[~screened["latent"].isin(run)]
    table = pd.concat([*exact, left], ignore_index=True) if exact else left
    place = {latent: number for number, latent in enumerate(order)}
    # Leaders are an unbroken beginning of the order; whoever comes after was drawn.
    chosen, has_run = {}, set(run)
    n_leading = next((number for number, latent in enumerate(order) if latent not in has_run), len(order))
    for latent in run:
        chosen[latent] = "all" if len(has_run) == len(order) else "leader" if place[latent] < n_leading else "drawn"
    table = table.assign(chosen_as=table["latent"].map(chosen).astype(object))
    table["chosen_as"] = table["chosen_as"].where(table["chosen_as"].notna(), None)
    return table.sort_values(["latent", "item"], kind="stable", ignore_index=True)[SWEEP.names]
