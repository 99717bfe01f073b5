"""What each screen says of every latent in the videos that it reached.

The gradient says something of every latent and item. Direct effects are run for the latents that *lead* in a video
alone: those whose tokens could move the margin of some counting question most if no token cancelled another's part
(`reach`). Of the others the direct screen keeps the gradient's estimate, which their reach bounds to first order.
"""

from __future__ import annotations

import math

import pandas as pd

LEADERS, SHARE = 32, 1 / 16
"""Latents that lead per video and counting question, and the share of those that fire there, if that is more."""
ESTIMATES = {"direct": "direct_estimate", "masked": "masked_delta_margin", "gradient": "attribution"}
"""Screen -> column with its estimates in `with_estimates`, the one that is trusted most first."""


def n_leaders(n_active: int) -> int:
    """How many of the latents that fire in a video lead on one question."""
    return min(n_active, max(LEADERS, math.ceil(SHARE * n_active)))


def leading(rows: pd.DataFrame) -> pd.Series:
    """Whether each row's latent leads in its video, on whichever of its counting questions.

    Args:
        rows: of sweep.parquet, all those of some videos.
    """
    # Ties go by number, so that the order of the rows does not matter.
    counting = rows[rows["counting"].astype(bool)].sort_values(["reach", "latent"], ascending=[False, True])
    by_item = counting.groupby("item")["reach"]
    pairs = counting.loc[by_item.cumcount() < by_item.transform("size").map(n_leaders), ["video_id", "latent"]]
    keys = pd.MultiIndex.from_frame(rows[["video_id", "latent"]])
    return pd.Series(keys.isin(pd.MultiIndex.from_frame(pairs)), index=rows.index)


def with_estimates(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of sweep.parquet with the columns of `ESTIMATES`; null where a screen did not reach the video.

    Args:
        rows: all rows of some videos.
    """
    leads = leading(rows) & rows["counting"].astype(bool)
    reached = rows[leads].groupby("video_id")["direct_delta_margin"].agg(lambda values: bool(values.notna().all()))
    known = rows["video_id"].map(reached).eq(True)
    estimate = rows["direct_delta_margin"].where(leads, rows["attribution"]).where(known)
    return rows.assign(direct_estimate=estimate.astype(float))
