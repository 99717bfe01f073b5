"""Annotation debt: the strongest firings of a label's latents where the label is not annotated.

Either the annotation lacks something that is there, or the latent fires on something else; a person who looks at the
moments can tell.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import sparse

from browse.gathering.moments import shown_moment
from browse.gathering.opened import OpenedSae
from browse.shards import Shard, integers, objects
from collect.data.perception_test import Video
from collect.reading import VideoRecord
from features.labels.labelling import ANNOTATED, label_video
from features.labels.unit_labels import Space
from features.moments import Moments, StoredSteps, all_moments

MOST_MOMENTS = 24
"""Of one latent, each in a video of its own."""
MOST_LATENTS = 16
"""Of one label, those that it explains best."""
MOST_VIDEOS = 2000
"""Videos that are looked at for one latent, those with its highest activations."""
KINDS = tuple(dict.fromkeys(space.kind for space in ANNOTATED))
"""Kinds of label that are annotated; places and times are not."""


def debt_shard(sae: OpenedSae, label: str, kind: str) -> Shard:
    """The shard `S/debt/LABEL`: the latents that are named so.

    Args:
        sae: the SAE.
        label: the label.
        kind: its kind.
    """
    if kind not in KINDS:
        return Shard(meta={"label": label, "kind": kind, "why": "places and times are known for every frame"})
    if not sae.run.annotations:
        return Shard(meta={"label": label, "kind": kind, "why": sae.run.data_missing or "there are no annotations"})
    catalogue = sae.tables["catalogue"]
    named = catalogue[catalogue["labelled"] & (catalogue["top_label"] == label) & (catalogue["top_label_kind"] == kind)]
    named = named.sort_values(["top_auroc", "latent"], ascending=[False, True]).head(MOST_LATENTS)
    latents = [int(latent) for latent in named["latent"]]
    rows = [
        _of_latent(sae, latent, label, Space(kind, str(level)))
        for latent, level in zip(latents, named["top_label_level"], strict=True)
    ]
    return Shard(
        columns={"latent": integers(latents), "json": objects(rows)}, meta={"label": label, "kind": kind, "why": None}
    )


def _of_latent(sae: OpenedSae, latent: int, label: str, space: Space) -> dict[str, Any]:
    run = sae.run
    token, value = sae.codes.column(latent)
    largest = float(value.max()) if len(value) else 0.0
    is_inside, is_known = np.zeros(len(token), dtype=bool), np.zeros(len(token), dtype=bool)
    for record, own in _by_height(run.videos, run.steps, token, value):
        video = run.annotations.get(record.video_id)
        if video is not None:
            inside = inside_of(video, record, label, space)
            is_inside[own] = inside[token[own] - record.row_start]
            is_known[own] = True
    outside = is_known & ~is_inside
    codes = sparse.csc_array(
        (value[outside], token[outside].astype(np.int32), np.array([0, int(outside.sum())])),
        shape=(sae.codes.n_tokens, 1),
    )
    moments = all_moments(codes, run.steps)
    order = np.lexsort((np.arange(len(moments.activation)), -moments.activation))
    _, firsts = np.unique(moments.video[order], return_index=True)
    chosen = order[np.sort(firsts)[:MOST_MOMENTS]].tolist()
    mass = float(value.sum(dtype=np.float64)) or 1.0
    shown = [
        shown_moment(run, _row(moments, place, sae, rank, mass), token, value, largest)
        for rank, place in enumerate(chosen)
    ]
    return {
        "latent": latent,
        "label": label,
        "moments": shown,
        "inside": int((is_known & is_inside).sum()),
        "outside": int(outside.sum()),
    }


def inside_of(video: Video, record: VideoRecord, label: str, space: Space) -> Bool[np.ndarray, " token"]:
    """The tokens of a video that a label touches: those of its boxes, or of the frames in which it goes on."""
    grid = record.grid
    found = label_video(video, grid, {space: (label,)})[space]
    units = np.zeros(found.n_units, dtype=bool)
    units[found.touched[:, 0]] = True
    units[found.positive[:, 0]] = True
    return np.repeat(units, grid.n_tokens // found.n_units)  # of tokens, of frames, or of the whole video


def _by_height(
    videos: tuple[VideoRecord, ...],
    steps: StoredSteps,
    token: Int64[np.ndarray, " token"],
    value: Float32[np.ndarray, " token"],
) -> list[tuple[VideoRecord, slice]]:
    """The videos in which a latent fires, with its tokens there; of very many those with the highest activations."""
    if not len(token):
        return []
    index = np.searchsorted(steps.row_start, token, side="right") - 1
    starts = np.flatnonzero(np.append(True, index[1:] != index[:-1]))
    stops = np.append(starts[1:], len(token))
    order = np.argsort(-np.maximum.reduceat(value, starts), kind="stable")[:MOST_VIDEOS]
    return [(videos[int(index[starts[run]])], slice(int(starts[run]), int(stops[run]))) for run in order.tolist()]


def _row(moments: Moments, place: int, sae: OpenedSae, rank: int, mass: float) -> dict[str, Any]:
    """A moment as a row of moments.parquet has it."""
    record = sae.run.videos[int(moments.video[place])]
    grid = record.grid
    first, last = int(moments.t_first[place]), int(moments.t_last[place])
    row, col = divmod(int(moments.patch[place]), grid.n_cols)
    return {
        "group": "outside",
        "rank": rank,
        "video_id": record.video_id,
        "split": "held_out" if record.video_id in sae.run.held_out else "train",
        "t_first": first,
        "t_last": last,
        "start_s": float(grid.spans_s[first, 0]),
        "stop_s": float(grid.spans_s[last, 1]),
        "t": int(moments.t[place]),
        "row": row,
        "col": col,
        "activation": float(moments.activation[place]),
        "n_tokens": int(moments.n_tokens[place]),
        "mass_share": float(moments.mass[place]) / mass,
    }
