"""How far each screen can be trusted, measured on the latents that were run exactly: screens.parquet.

A latent's effect on a subject is the mean over the train videos that ask about it, those in which it is silent included
as zeros; for a screen that did not reach all videos, estimates and exact effects are both taken over those it reached.
What the leaders of the screens leave out is judged by edits, one latent in one video, that were drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from steer.screens.estimates import ESTIMATES
from steer.tables import SCREENS

LARGE = 0.1
"""|delta_margin| in nats from which an effect is large: a mean over a subject's videos, or that of one edit."""
TOP = 20
BOUND_LEVEL = 0.95


def screens(estimated: pd.DataFrame) -> pd.DataFrame:
    """Return screens.parquet.

    Args:
        estimated: sweep.parquet, from `with_estimates`.
    """
    counting = estimated[estimated["counting"].astype(bool)]
    is_led = counting["chosen_as"].isin(["leader", "all"])
    rows: list[dict[str, Any]] = []
    for name, column in ESTIMATES.items():
        reached = counting.groupby("video_id")[column].agg(lambda values: bool(values.notna().all()))
        known = counting[counting["video_id"].map(reached).astype(bool)]
        for subject, own in known.groupby("subject", sort=True):
            found = effects_of(own, ["delta_margin", column])
            rest = counting[~is_led & (counting["subject"] == subject)]
            n_rest = len(rest[["latent", "video_id"]].drop_duplicates())
            drawn = rest[rest["chosen_as"] == "drawn"].groupby(["latent", "video_id"])["delta_margin"].mean()
            n_missed = int((drawn.abs() > LARGE).sum())
            rows.append(
                {
                    "screen": name,
                    "subject": str(subject),
                    "n_videos": own["video_id"].nunique(),
                    "n_latents": own["latent"].nunique(),
                    "n_exact": len(found),
                    **agreement(found["delta_margin"].to_numpy(), found[column].to_numpy()),
                    "n_rest": n_rest,
                    "n_drawn": len(drawn),
                    "n_missed": n_missed,
                    "missed_bound": missed_bound(n_missed, len(drawn), n_rest),
                }
            )
    return pd.DataFrame(rows, columns=SCREENS.names)


def effects_of(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over videos of the latents that were run exactly in all of them.

    Args:
        rows: of sweep.parquet, those of one subject.
        columns: what is averaged, over the items of a video first.
    """
    exact = rows[rows["chosen_as"].isin(["leader", "all"])]
    by_video = exact.groupby(["latent", "video_id"], sort=True)[list(columns)].mean()
    return by_video.groupby("latent", sort=True).sum() / rows["video_id"].nunique()


def agreement(exact: Float[np.ndarray, " latent"], estimate: Float[np.ndarray, " latent"]) -> dict[str, Any]:
    """Compare a screen's estimates with exact effects.

    Returns:
        The columns of screens.parquet about it; a correlation is null for fewer than three latents.
    """
    large = np.abs(exact) > LARGE
    # What does nothing at all belongs to no top.
    n_top = min(TOP, int(np.count_nonzero(exact)))
    both = [set(np.argsort(-np.abs(each), kind="stable")[:n_top].tolist()) for each in (exact, estimate)]
    return {
        "n_large": int(large.sum()),
        "rank_correlation": _spearman(exact, estimate),
        "rank_correlation_large": _spearman(exact[large], estimate[large]),
        "sign_agreement_large": float(np.mean(np.sign(exact[large]) == np.sign(estimate[large])))
        if large.any()
        else None,
        "n_top": n_top,
        "recall_top": len(both[0] & both[1]) / n_top if n_top else None,
    }


def missed_bound(n_missed: int, n_drawn: int, n_rest: int) -> float:
    """Upper end of the one-sided 95 % interval of a share, from a random sample; 0 where nothing is left to miss.

    Source: Clopper and Pearson (1934).
    """
    from scipy.stats import beta

    if n_rest == 0:
        return 0.0
    return float(beta.ppf(BOUND_LEVEL, n_missed + 1, n_drawn - n_missed)) if n_missed < n_drawn else 1.0


def _spearman(one: Float[np.ndarray, " latent"], other: Float[np.ndarray, " latent"]) -> float | None:
    from scipy.stats import spearmanr

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)
