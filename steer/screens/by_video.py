"""One screen of all latents, video by video: direct effects, or masks.

parts/screen-K.parquet   estimates for the latents and items of video K, in the order in which videos are screened
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from ask.tables import REAL, TEXT, WHOLE
from collect.artefact.table import column, joined_rows, table_schema
from steer.screens.budget import Budget, Job, read_whole
from steer.screens.cost import Shape, cheapest
from steer.screens.estimates import leading
from steer.screens.masked import N_MASKS, SHARE, draw_masks, effects_of_masks
from steer.screens.passes import Passes, ablations, joined

SCREENED = table_schema(
    "One row per latent and item of one video: what a screen says of its ablation.",
    column("latent", WHOLE, "latent", least=0),
    column("item", TEXT, "item of items.parquet"),
    column("estimate", REAL, "estimated change of the margin", null=False),
)

_MASKS_AT_ONCE = 40


def pick_screen(passes: Passes, rows: pd.DataFrame) -> str | None:
    """The screen of the least cost for the video with the median number of active latents; None if none pays.

    Args:
        passes: over the run's videos.
        rows: of sweep.parquet, before anything but the gradient was run.
    """
    n_active = rows.groupby("video_id", sort=True)["latent"].nunique().sort_values(kind="stable")
    video_id, n = str(n_active.index[len(n_active) // 2]), int(n_active.iloc[len(n_active) // 2])
    case, _ = passes.cases[video_id]
    has_direct = passes.shows_prefix(video_id)
    return cheapest(Shape.of(passes.editor.model, case), n, has_direct=has_direct)


def order_of_videos(rows: pd.DataFrame) -> list[str]:
    """Order videos so that all subjects of counting questions are reached early.

    Subjects take turns, those first that more videos ask about; videos without counting questions are left out.

    Args:
        rows: of sweep.parquet; videos, subjects and whether questions count.
    """
    pairs = rows.loc[rows["counting"].astype(bool), ["subject", "video_id"]].drop_duplicates()
    queues = {subject: sorted(group["video_id"]) for subject, group in pairs.groupby("subject", sort=True)}
    found: dict[str, None] = {}
    turns = sorted(queues, key=lambda subject: (-len(queues[subject]), subject))
    while any(queues.values()):
        for subject in turns:
            queues[subject] = [video_id for video_id in queues[subject] if video_id not in found]
            if queues[subject]:
                found[queues[subject].pop(0)] = None
    return list(found)


def screen_videos(
    parts: Path,
    passes: Passes,
    name: str,
    rows: pd.DataFrame,
    budget: Budget,
    until_s: float,
    seed: int,
) -> pd.DataFrame:
    """Screen video after video, until all are done or the time is used up.

    Args:
        parts: folder of the stage's unfinished work.
        passes: over the run's videos.
        name: `direct` or `masked`.
        rows: of sweep.parquet, before anything but the gradient was run.
        budget: of the sweep.
        until_s: seconds of it after which no further video begins.
        seed: of the masks.

    Returns:
        `[latent, item, estimate]` of the videos that were reached.
    """
    screened = rows[leading(rows) & rows["counting"].astype(bool)] if name == "direct" else rows
    by_video = dict(list(screened.groupby("video_id", sort=False)))

    def job(number: int, video_id: str) -> Job:
        own = by_video[video_id]
        latents = sorted({int(latent) for latent in own["latent"]})
        return Job(
            path=parts / f"screen-{number}.parquet",
            work=lambda: estimates(passes, name, video_id, latents, seed),
            is_own=lambda found: all(set(found[column]) == set(own[column]) for column in ("latent", "item")),
        )

    jobs = [job(number, video_id) for number, video_id in enumerate(order_of_videos(rows))]
    with tqdm(total=len(jobs), desc=f"screen, {name}", unit="video") as progress:
        n_done = budget.run(jobs, SCREENED, until_s, lambda _: progress.update())
    found = [read_whole(each.path, SCREENED) for each in jobs[:n_done]]
    whole = [each for each in found if each is not None]
    assert len(whole) == n_done, "a table that was just written cannot be read"
    return joined_rows(whole, SCREENED)


def estimates(passes: Passes, name: str, video_id: str, latents: Sequence[int], seed: int) -> pd.DataFrame:
    """`[latent, item, estimate]` of one video; direct effects on its counting questions, masks on all."""
    case, codes = passes.cases[video_id]
    edits = ablations(passes.editor, codes, latents)
    if name == "direct":
        found = passes.direct(video_id, edits, case.counting).double().cpu().numpy()
        case = case.of_items(case.counting)
    else:
        own = int.from_bytes(hashlib.sha256(f"{seed}/{video_id}".encode()).digest()[:4])
        masks = draw_masks(len(latents), N_MASKS, SHARE, np.random.default_rng(own))
        # A joined edit touches most tokens, so few are held at a time.
        parts: list[Tensor] = []
        for some in np.split(masks, range(_MASKS_AT_ONCE, len(masks), _MASKS_AT_ONCE)):
            together = [joined([edits[place] for place in np.flatnonzero(mask)], codes.n_tokens) for mask in some]
            parts.append(passes.total(video_id, together).delta_margin)
        changes = torch.cat(parts).double().cpu().numpy()
        found = effects_of_masks(masks, changes, own).T
    items = [item.item_id for item in case.items]
    return pd.DataFrame(
        {
            "latent": np.repeat(np.array(latents), len(items)),
            "item": items * len(latents),
            "estimate": found.reshape(-1),
        }
    )
