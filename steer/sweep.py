"""The exact ablation of every latent on the train videos, one at a time, the most promising first.

    parts/screened.parquet      every latent and item where it fires, with the gradient's estimate
    parts/screen-K.parquet      estimates of the second screen for video K (`steer.screens.by_video`)
    parts/sweep-K.parquet       the rows of lot K of the latents, run exactly
    parts/sweep.json            the seconds that these took
    sweep.parquet               all of them together, when the budget has ended or every latent is done

The gradient's screen has run on all videos. Where it pays, a second one runs on as many videos as a third of the budget
allows; the rest of it goes to exact runs, in lots (`steer.screens.plan`): the leaders of the screens in every video
where they fire, and beside them single edits, one latent in one video, drawn at random from all others, so that what
the leaders leave out can be judged (`steer.screens.agreement`). A killed sweep goes on with the first part that is not
there, and the time that the others took counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ask.cases import Case
from collect.artefact.folder import write_table
from collect.artefact.table import joined_rows
from features.division import ALONE, Division
from steer.codes import VideoCodes
from steer.screens.budget import Budget, Job, read_whole
from steer.screens.by_video import order_of_videos, pick_screen, screen_videos
from steer.screens.estimates import with_estimates
from steer.screens.gradient import Attribution
from steer.screens.passes import Passes, ablations
from steer.screens.plan import Lot, drawn_of, lots_of, order_of
from steer.tables import SWEEP

logger = logging.getLogger(__name__)

SCREEN_SHARE = 1 / 3
"""Share of the budget that the second screen may take."""
EXACT_COLUMNS = ("delta_margin", "delta_accuracy", "delta_expected_count")


def screened_rows(
    case: Case, codes: VideoCodes, norms: Float[Tensor, " d_sae"], estimates: Sequence[Attribution]
) -> pd.DataFrame:
    """Rows of sweep.parquet for one video, before anything but the gradient is run.

    Args:
        case: the video with its questions.
        codes: activations of its visual tokens.
        norms: norm of each latent's decoder direction.
        estimates: the gradient's, of each item.
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
                "attribution": found.estimate[active].double().cpu().numpy(),
                "reach": found.reach[active].double().cpu().numpy(),
            }
        )
        for item, found in zip(case.items, estimates, strict=True)
    ]
    return pd.concat(frames, ignore_index=True)


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
    estimated = with_estimates(screened)
    order = order_of(estimated)
    lots = lots_of(order, drawn_of(estimated, seed))
    edits = pd.MultiIndex.from_frame(screened[["latent", "video_id"]])
    n_edits = screened.groupby("latent", sort=False)["video_id"].nunique()

    def rows_of(lot: Lot) -> pd.DataFrame:
        drawn = pd.MultiIndex.from_tuples(lot.edits, names=edits.names) if lot.edits else edits[:0]
        return screened[screened["latent"].isin(lot.latents) | edits.isin(drawn)]

    def job(number: int, lot: Lot) -> Job:
        return Job(
            path=parts / f"sweep-{number}.parquet",
            work=lambda: _lot(passes, rows_of(lot), lot.latents),
            is_own=lambda found: _edits_of(found) == _edits_of(rows_of(lot)),
        )

    jobs = [job(number, lot) for number, lot in enumerate(lots)]
    sizes = [int(n_edits[list(lot.latents)].sum()) + len(lot.edits) for lot in lots]
    with tqdm(total=sum(sizes), desc="sweep", unit="edit") as progress:
        n_done = budget.run(jobs, SWEEP, budget_s, lambda number: progress.update(sizes[number]))
    exact = [rows for each in jobs[:n_done] if (rows := read_whole(each.path, SWEEP)) is not None]
    assert len(exact) == n_done, "a table that was just written cannot be read"
    leaders = {latent for lot in lots[:n_done] for latent in lot.latents}
    table = _joined(screened, exact, leaders)
    logger.info(
        "%d of %d active latents were ablated exactly on all train videos, and %d edits drawn from the others",
        len(leaders),
        len(order),
        len(table.loc[table["chosen_as"] == "drawn", ["latent", "video_id"]].drop_duplicates()),
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
    merged[f"{name}_delta_margin"] = merged.pop("estimate")
    n_videos = merged["video_id"][known].nunique(), len(order_of_videos(screened))
    logger.info("the screen `%s` reached %d of %d train videos", name, *n_videos)
    return merged.assign(method=merged["method"].where(~known, name))


def _edits_of(rows: pd.DataFrame) -> set[tuple[int, str]]:
    return set(zip(rows["latent"], rows["video_id"], strict=True))


def _lot(passes: Passes, rows: pd.DataFrame, leaders: Collection[int]) -> pd.DataFrame:
    """Run the edits of one lot, video by video."""
    by_video = rows.groupby("video_id", sort=True)
    return pd.concat([_ablated(passes, str(video_id), own, leaders) for video_id, own in by_video], ignore_index=True)


def _ablated(passes: Passes, video_id: str, rows: pd.DataFrame, leaders: Collection[int]) -> pd.DataFrame:
    """One video's rows with the exact effects of some latents, and beside them the direct ones of the leaders."""
    case, codes = passes.cases[video_id]
    latents = sorted({int(latent) for latent in rows["latent"]})
    edits = ablations(passes.editor, codes, latents)
    found = passes.total(video_id, edits)
    columns = {name: getattr(found, name).double() for name in EXACT_COLUMNS}
    led = [place for place, latent in enumerate(latents) if latent in leaders]
    if led and passes.shows_prefix(video_id):
        direct = torch.full_like(columns["delta_margin"], torch.nan)
        direct[led] = passes.direct(video_id, [edits[place] for place in led]).double()
        columns["direct_delta_margin"] = direct
    items = [item.item_id for item in case.items]
    exact = pd.DataFrame(
        {
            "latent": np.repeat(np.array(latents), len(items)),
            "item": items * len(latents),
            **{name: values.cpu().numpy().reshape(-1) for name, values in columns.items()},
        }
    )
    kept = rows.drop(columns=list(columns)).assign(method="exact")
    merged = kept.merge(exact, on=["latent", "item"], how="left", validate="one_to_one")
    if "direct_delta_margin" in columns:  # the screen has run some of those that were drawn
        merged["direct_delta_margin"] = merged["direct_delta_margin"].fillna(
            rows["direct_delta_margin"].reset_index(drop=True)
        )
    return merged[rows.columns]


def _joined(screened: pd.DataFrame, exact: Sequence[pd.DataFrame], leaders: Collection[int]) -> pd.DataFrame:
    """All rows by latent and item, those that were run exactly in place of the screens'."""
    keys = ["latent", "item"]
    run = pd.concat(exact, ignore_index=True) if exact else screened.iloc[:0]
    # An edit that was drawn may have been run once more when its latent came to lead: the numbers are the same.
    run = run.drop_duplicates(keys, keep="last")
    is_run = pd.MultiIndex.from_frame(screened[keys]).isin(pd.MultiIndex.from_frame(run[keys]))
    table = joined_rows([run, screened[~is_run]], SWEEP)
    whole = set(table["latent"]) == set(leaders)
    is_led, is_exact = table["latent"].isin(leaders), table["method"] == "exact"
    table["chosen_as"] = None
    table.loc[is_exact, "chosen_as"] = "drawn"
    table.loc[is_exact & is_led, "chosen_as"] = "all" if whole else "leader"
    return table.sort_values(keys, kind="stable", ignore_index=True)[SWEEP.names]
