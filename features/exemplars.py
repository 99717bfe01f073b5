"""The tokens that activate each latent most, spread over videos.

The order is total: higher activation first, then the earlier token of the store, so that ties do not depend on how the
codes were read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int32, Int64
from scipy import sparse

from collect.reading import VideoRecord
from features.activity import TokenPlaces, latent_blocks
from features.association.runs import Runs, SortedItems, sortable
from features.codes import Codes
from features.division import ALONE, Division


def top_tokens(
    codes: Codes, videos: Sequence[VideoRecord], *, n: int, per_video: int, division: Division = ALONE
) -> pd.DataFrame:
    """Find the `n` tokens with the highest activation of each latent, at most `per_video` of one video.

    Each latent is looked at by the process whose share it is in; every process gets the result.

    Returns:
        One row per exemplar with `latent`, `rank` (0 = highest), `token` (row of the store), `video` (index into
        `videos`) and `activation`, ordered by latent and rank. Latents that are active in few videos have fewer rows.
    """
    video_of_token = TokenPlaces.of(videos).video
    own = division.share_by_cost(codes.n_active())
    parts = [
        top_tokens_of(codes.by_latent(latents), latents, video_of_token, n=n, per_video=per_video)
        for latents in latent_blocks(codes, own, "exemplars")
    ]
    found = pd.concat(parts, ignore_index=True)
    best = pd.DataFrame({name: division.join(found[name].to_numpy()) for name in found})
    best["rank"] = best.groupby("latent").cumcount().astype(np.int64)
    return best[["latent", "rank", "token", "video", "activation"]]


def top_tokens_of(
    codes: sparse.csc_array,
    latents: Int64[np.ndarray, " latent"],
    video_of_token: Int32[np.ndarray, " token"],
    *,
    n: int,
    per_video: int,
) -> pd.DataFrame:
    """The exemplars of some latents, from their activations [token, latent] on all tokens; without `rank`."""
    place = np.repeat(np.arange(len(latents), dtype=np.int64), np.diff(codes.indptr))
    video = video_of_token[codes.indices].astype(np.int64)
    # The n highest are among the tokens that reach the n-th highest of the videos' maxima, and few others are.
    runs = Runs.between((place << 32) | video)
    most = np.maximum.reduceat(codes.data, runs.start) if len(runs.start) else codes.data
    falling = SortedItems.by(place[runs.start], (1 << 32) - 1 - sortable(most))
    ranked = Runs.between(falling.key)
    last = ranked.start[ranked.stop - ranked.start >= n] + n - 1
    least = np.zeros(len(latents), dtype=np.float32)
    least[falling.key[last]] = most[falling.order[last]]
    kept = codes.data >= least[place]
    found = pd.DataFrame(
        {
            "latent": latents[place[kept]],
            "token": codes.indices[kept].astype(np.int64),
            "video": video[kept],
            "activation": codes.data[kept],
        }
    )
    return _head(_head(found, ["latent", "video"], per_video), ["latent"], n)


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
