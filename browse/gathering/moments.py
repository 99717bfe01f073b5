"""Moments as the page shows them: where a clip is, what it shows, and the heat that is drawn over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from browse.gathering.media_names import clip_name, still_name
from browse.gathering.opened import OpenedRun
from browse.gathering.profiles import MOST_HEAT, heat, per_frame
from browse.gathering.rounding import all_rounded, rounded


def shown_moment(
    run: OpenedRun,
    moment: Mapping[str, Any],
    token: Int64[np.ndarray, " token"],
    value: Float32[np.ndarray, " token"],
    largest: float,
    most_heat: int = MOST_HEAT,
) -> dict[str, Any]:
    """A row of moments.parquet as the page shows it.

    Args:
        run: gives the video.
        moment: the row.
        token: all tokens of the store at which its latent fires.
        value: its activations there.
        largest: the largest of them.
        most_heat: patches of its heat map to keep.
    """
    video_id = str(moment["video_id"])
    record = run.record_of[video_id]
    grid = record.grid
    inside = slice(*np.searchsorted(token, [record.row_start, record.row_stop]).tolist())
    rank = token[inside] - record.row_start
    n_patches = grid.n_rows * grid.n_cols
    steps = (int(moment["t_first"]), int(moment["t_last"]))
    peak = {name: int(moment[name]) for name in ("t", "row", "col")}
    has_media = run.has_media(video_id)
    return {
        "group": moment["group"],
        "rank": int(moment["rank"]),
        "video": video_id,
        "split": moment["split"],
        "t0": steps[0],
        "t1": steps[1],
        "start_s": rounded(moment["start_s"]),
        "stop_s": rounded(moment["stop_s"]),
        "activation": rounded(moment["activation"]),
        "mass_share": rounded(moment["mass_share"]),
        "n_tokens": int(moment["n_tokens"]),
        "peak": {**peak, "box": all_rounded(grid.box(peak["row"], peak["col"]))},
        "heat": heat(rank, value[inside], n_patches, largest, steps, most_heat),
        "per_frame": per_frame(rank, value[inside], n_patches, grid.n_t),
        "media": clip_name(video_id) if has_media else None,
        "still": still_name(video_id, peak["t"]) if has_media else None,
    }
