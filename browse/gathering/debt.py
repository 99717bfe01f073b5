"""Annotation debt: the strongest firings of a label's latents where the label is not annotated.

Either the annotation lacks something that is there, or the latent fires on something else; a person who looks at the
moments can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import sparse

from browse.gathering.moments import shown_moment
from browse.gathering.opened import OpenedSae
from browse.shards import Shard, integers, objects
from collect.reading import VideoRecord
from features.labels.labelling import ANNOTATED, label_video
from features.labels.unit_labels import Space, VideoLabels
from features.moments import Moments, StoredSteps, all_moments

MOST_MOMENTS = 24
"""Of one latent, each in a video of its own."""
MOST_LATENTS = 16
"""Of one label, those that it explains best."""
MOST_VIDEOS = 2000
"""Videos that are looked at for one latent, those with its highest activations."""
MOST_LAID = 512
"""Videos whose labels are kept over their tokens."""
KINDS = tuple(dict.fromkeys(space.kind for space in ANNOTATED))
"""Kinds of label that are annotated; places and times are not."""


class DebtShards:
    """Makes the shards `S/debt/LABEL` of one SAE.

    Args:
        sae: the SAE.
    """

    def __init__(self, sae: OpenedSae) -> None:
        self._sae = sae
        named = sae.tables["catalogue"]
        named = named[named["labelled"] & named["top_label_kind"].isin(KINDS)]
        names: dict[Space, set[str]] = {}
        for label, kind, level in zip(
            named["top_label"], named["top_label_kind"], named["top_label_level"], strict=True
        ):
            names.setdefault(Space(str(kind), str(level)), set()).add(str(label))
        self._vocabulary = {space: tuple(sorted(labels)) for space, labels in names.items()}
        # All labels of a video are laid over its tokens at once, which takes little longer than one of them.
        self._laid = lru_cache(maxsize=MOST_LAID)(self._lay)

    def shard(self, label: str, kind: str) -> Shard:
        """The shard of a label.

        Args:
            label: the label.
            kind: its kind.
        """
        sae = self._sae
        if kind not in KINDS:
            return Shard(meta={"label": label, "kind": kind, "why": "places and times are known for every frame"})
        if not sae.run.annotations:
            why = sae.run.data_missing or "there are no annotations"
            return Shard(meta={"label": label, "kind": kind, "why": why})
        named = sae.tables["catalogue"]
        named = named[named["labelled"] & (named["top_label"] == label) & (named["top_label_kind"] == kind)]
        named = named.sort_values(["top_auroc", "latent"], ascending=[False, True]).head(MOST_LATENTS)
        latents = [int(latent) for latent in named["latent"]]
        rows = [
            self._of_latent(latent, label, Space(kind, str(level)))
            for latent, level in zip(latents, named["top_label_level"], strict=True)
        ]
        meta = {"label": label, "kind": kind, "why": None}
        return Shard(columns={"latent": integers(latents), "json": objects(rows)}, meta=meta)

    def _of_latent(self, latent: int, label: str, space: Space) -> dict[str, Any]:
        sae, run = self._sae, self._sae.run
        token, value = sae.codes.column(latent)
        largest = float(value.max()) if len(value) else 0.0
        is_inside, is_known = np.zeros(len(token), dtype=bool), np.zeros(len(token), dtype=bool)
        place = self._vocabulary[space].index(label)
        for record, own in _by_height(run.videos, run.steps, token, value):
            if record.video_id in run.annotations:
                inside = inside_of(self._laid(record.video_id)[space], place, record)
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
        return {
            "latent": latent,
            "label": label,
            "moments": [
                shown_moment(run, _row(moments, place, sae, rank, mass), token, value, largest)
                for rank, place in enumerate(chosen)
            ],
            "inside": int((is_known & is_inside).sum()),
            "outside": int(outside.sum()),
        }

    def _lay(self, video_id: str) -> Mapping[Space, VideoLabels]:
        run = self._sae.run
        return label_video(run.annotations[video_id], run.record_of[video_id].grid, self._vocabulary)


def inside_of(labels: VideoLabels, place: int, record: VideoRecord) -> Bool[np.ndarray, " token"]:
    """The tokens of a video that a label touches: those of its boxes, or of the frames in which it goes on.

    Args:
        labels: the video's labels of one space.
        place: which of them.
        record: the video.
    """
    units = np.zeros(labels.n_units, dtype=bool)
    for pairs in (labels.touched, labels.positive):
        units[pairs[pairs[:, 1] == place, 0]] = True
    return np.repeat(units, record.grid.n_tokens // labels.n_units)  # of tokens, of frames, or of the whole video


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
