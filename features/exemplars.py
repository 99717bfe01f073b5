"""The tokens that activate each latent most, spread over videos.

The order is total: higher activation first, then the earlier token of the store, so that ties do not depend on how the
codes were read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int64

from collect.reading import VideoRecord
from features.activity import video_batches
from features.codes import Codes


def top_tokens(codes: Codes, videos: Sequence[VideoRecord], *, n: int, per_video: int) -> pd.DataFrame:
    """Find the `n` tokens with the highest activation of each latent, at most `per_video` of one video.

    Returns:
        One row per exemplar with `latent`, `rank` (0 = highest), `token` (row of the store), `video` (index into
        `videos`) and `activation`, ordered by latent and rank. Latents that are active in few videos have fewer rows.
    """
    best = pd.DataFrame({"latent": [], "token": [], "video": [], "activation": []})
    best = best.astype({"latent": "int64", "token": "int64", "video": "int64", "activation": "float32"})
    first = 0
    for batch in video_batches(videos):
        start = batch[0].row_start
        entries = codes.rows(start, batch[-1].row_stop).tocoo()
        sizes = [video.grid.n_tokens for video in batch]
        video_of_row = np.repeat(np.arange(first, first + len(batch)), sizes)
        found = pd.DataFrame(
            {
                "latent": entries.col.astype(np.int64),
                "token": entries.row.astype(np.int64) + start,
                "video": video_of_row[entries.row],
                "activation": entries.data,
            }
        )
        found = _head(found, ["latent", "video"], per_video)
        best = _head(pd.concat([best, found], ignore_index=True), ["latent"], n)
        first += len(batch)
    best["rank"] = best.groupby("latent").cumcount().astype(np.int64)
    return best[["latent", "rank", "token", "video", "activation"]]


def describe_exemplars(tops: pd.DataFrame, videos: Sequence[VideoRecord], held_out: Collection[str]) -> pd.DataFrame:
    """Add to `top_tokens` where and when each exemplar is; see `features.catalogue.EXEMPLARS` for the columns."""
    rows: list[dict[str, object]] = []
    for top in tops.itertuples(index=False):
        video = videos[int(top.video)]
        grid = video.grid
        shape = (grid.n_t, grid.n_rows, grid.n_cols)
        t, row, col = (int(part) for part in np.unravel_index(int(top.token) - video.row_start, shape))
        x1, y1, x2, y2 = (float(edge) for edge in grid.box(row, col))
        rows.append(
            {
                "latent": int(top.latent),
                "rank": int(top.rank),
                "video_id": video.video_id,
                "split": "held_out" if video.video_id in held_out else "train",
                "t": t,
                "row": row,
                "col": col,
                "frame_id": int(grid.frame_ids[t]),
                "time_s": float(grid.spans_s[t, 0]),
                "activation": float(top.activation),
                "x1": x1,
                "y1": y1,
                "x2": x2,
                "y2": y2,
                "media": "",
                "media_frame": "",
            }
        )
    return pd.DataFrame(rows)


def _head(frame: pd.DataFrame, keys: list[str], n: int) -> pd.DataFrame:
    """Keep the first `n` rows of each group, by falling activation and then rising token, ordered by group."""
    order = np.lexsort((frame["token"], -frame["activation"], *(frame[key] for key in reversed(keys))))
    frame = frame.iloc[order].reset_index(drop=True)
    return frame[_position_in_group(frame[keys].to_numpy()) < n].reset_index(drop=True)


def _position_in_group(keys: Int64[np.ndarray, "row key"]) -> Int64[np.ndarray, " row"]:
    is_first: Bool[np.ndarray, " row"] = np.ones(len(keys), dtype=bool)
    is_first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    starts = np.flatnonzero(is_first)
    return np.arange(len(keys)) - starts[np.cumsum(is_first) - 1] if len(keys) else np.empty(0, dtype=np.int64)
