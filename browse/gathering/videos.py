"""The shards of single videos: `video/ID`, what is there to see and to ask, and `S/video/ID`, which latents fire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from browse.gathering.grouped import Grouped, records
from browse.gathering.media_names import clip_name
from browse.gathering.opened import Effects, OpenedRun, OpenedSae
from browse.gathering.profiles import MOST_HEAT, heat
from browse.gathering.rounding import all_rounded, plain, rounded
from browse.names import part_of
from browse.shards import Shard, floats, integers, objects, texts
from collect.data.perception_test import Question, Segment, Track, Video
from collect.reading import VideoRecord
from features.activity import measure_activity
from steer.reading import read_targets

MOST_LATENTS = 200
"""Latents that are listed for one video."""
MOST_EDITS = 20
"""Edits that are listed for one question: those that move it most."""
_EDIT = ("item", "target", "operation", "delta_margin", "delta_expected_count")
_SWEPT = ("item", "latent", "delta_margin", "delta_expected_count")


class VideoShards:
    """Makes the shards `video/ID` of a run.

    Args:
        run: the run.
        saes: its SAEs by their names in shards, whose effects are shown.
    """

    def __init__(self, run: OpenedRun, saes: Mapping[str, OpenedSae]) -> None:
        self._run = run
        self._of_part = {part_of(video.video_id): video for video in run.videos}
        self._asked = {key: _Asked(sae, sae.effects) for key, sae in saes.items() if sae.effects is not None}

    @property
    def parts(self) -> list[str]:
        """The names of the videos in shards."""
        return list(self._of_part)

    def record(self, part: str) -> VideoRecord | None:
        """The video of a name in shards."""
        return self._of_part.get(part)

    def shard(self, part: str) -> Shard | None:
        """The shard of one video; None if there is none of that name."""
        record = self._of_part.get(part)
        if record is None:
            return None
        video = self._run.annotations.get(record.video_id)
        grid = record.grid
        meta: dict[str, Any] = {
            "id": record.video_id,
            "key": part,
            "split": "held_out" if record.video_id in self._run.held_out else "train",
            "duration_s": rounded(record.n_frames / record.frame_rate),
            "frame_rate": rounded(record.frame_rate),
            "width": record.width,
            "height": record.height,
            "grid": {
                "n_t": grid.n_t,
                "n_row": grid.n_rows,
                "n_col": grid.n_cols,
                "patch_boxes": [all_rounded(box) for box in grid.boxes.reshape(-1, 4)],
                "spans_s": [all_rounded(span) for span in grid.spans_s],
                "frame_ids": [[int(frame)] for frame in grid.frame_ids],
                "frame_s": all_rounded(grid.spans_s[:, 0]),
            },
            "annotated": video is not None,
            "tracks": [] if video is None else [_track(track) for track in video.tracks],
            "actions": [] if video is None else [_segment(segment) for segment in video.actions],
            "sounds": [] if video is None else [_segment(segment) for segment in video.sounds],
            "questions": [] if video is None else [self._question(video, asked) for asked in video.questions],
            "clip": clip_name(record.video_id) if self._run.has_media(record.video_id) else None,
        }
        return Shard(meta=meta)

    def _question(self, video: Video, question: Question) -> dict[str, Any]:
        item = f"{video.video_id}/{question.id}"
        answers = {key: asked.answer(item) for key, asked in self._asked.items()}
        answered = next((answer for answer in answers.values() if answer is not None), None)
        edits = [edit for key, asked in self._asked.items() for edit in asked.edits(key, item)]
        edits.sort(key=lambda edit: -abs(edit["delta_margin"] or 0.0))
        return {
            "item": item,
            "question": question.question,
            "options": list(question.options),
            "answer": question.answer_id if question.answer_id >= 0 else None,
            "tags": list(question.tag),
            **{
                name: None if answered is None else answered[name]
                for name in ("subject", "counting", "predicted", "right", "margin", "expected_count")
            },
            "edited": edits[:MOST_EDITS],
        }


class _Asked:
    """The answers and edits of the questions that an SAE's steer stage asked."""

    def __init__(self, sae: OpenedSae, effects: Effects) -> None:
        items = effects.tables["items"]
        self._items = {row["item"]: row for row in records(items)}
        targets = read_targets(effects.tables)
        self._latents = {name: list(target.latents) for name, target in targets.items()}
        found = sae.item_effects
        self._effects = Grouped(found["effects"], "item", _EDIT)
        sweep = found["sweep"]
        # A question has a row for every latent that fires on its video; only the largest are shown.
        sweep = sweep[sweep["method"] == "exact"]
        order = np.argsort(-sweep["delta_margin"].abs().to_numpy(), kind="stable")
        largest = sweep.iloc[order].groupby("item", sort=False).head(MOST_EDITS)
        self._sweep = Grouped(largest, "item", _SWEPT)

    def answer(self, item: str) -> dict[str, Any] | None:
        """The unedited model's answer."""
        row = self._items.get(item)
        if row is None:
            return None
        return {
            "subject": row["subject"] if isinstance(row["subject"], str) else None,
            "counting": bool(row["counting"]),
            "predicted": predicted(row),
            "right": rounded(row["accuracy"]),
            "margin": rounded(row["margin"]),
            "expected_count": rounded(row["expected_count"]),
        }

    def edits(self, key: str, item: str) -> list[dict[str, Any]]:
        """What edits change about it."""
        found: list[dict[str, Any]] = [
            {"target": str(row["latent"]), "latents": [int(row["latent"])], "operation": "ablate", **row}
            for row in self._sweep.rows(item)
        ]
        found += [{"latents": self._latents.get(row["target"], []), **row} for row in self._effects.rows(item)]
        return [
            {
                "sae": key,
                **{name: plain(edit[name]) for name in ("target", "operation", "delta_margin", "delta_expected_count")},
                "latents": edit["latents"],
            }
            for edit in found
        ]


def predicted(item: Mapping[str, Any]) -> int | None:
    """The option that the model chose, as far as its answers over all orders of the options say.

    The right one if it was chosen in every order; else, of a counting question, the one whose number is nearest to the
    expected count; else None.

    Args:
        item: a row of items.parquet.
    """
    if item["accuracy"] is not None and float(item["accuracy"]) > 1 - 1e-6:
        return int(item["answer_id"])
    values, count = item["values"], item["expected_count"]
    if values is None or not len(values) or count is None or count != count:  # NaN is unlike itself
        return None
    return int(np.abs(np.asarray(values, dtype=np.float64) - float(count)).argmin())


def _track(track: Track) -> dict[str, Any]:
    boxes = np.concatenate([track.times_s[:, None], track.boxes, track.is_masked[:, None]], axis=1)
    return {"id": track.id, "label": track.label, "boxes": [all_rounded(line) for line in boxes]}


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "label": segment.label,
        "start_s": rounded(segment.start_s),
        "stop_s": rounded(segment.end_s),
        "parent": list(segment.parent_objects),
    }


class FiringShards:
    """Makes the shards `S/video/ID` of one SAE.

    Args:
        sae: the SAE; its features are finished.
    """

    def __init__(self, sae: OpenedSae) -> None:
        self._sae = sae
        if sae.is_baseline:
            activity = measure_activity(sae.codes, sae.run.videos)
            self._usual, self._largest = activity.mean_active, activity.max_activation
            self._names: list[Any] = [None] * sae.n_latents
        else:
            catalogue: pd.DataFrame = sae.tables["catalogue"]
            self._usual = catalogue["mean_active"].to_numpy()
            self._largest = catalogue["max_activation"].to_numpy()
            self._names = catalogue["top_label"].where(catalogue["labelled"]).tolist()

    def shard(self, record: VideoRecord) -> Shard:
        """The latents that fire in a video, those furthest above their usual activation first."""
        codes = self._sae.codes.rows(record.row_start, record.row_stop).tocsc()
        codes.sort_indices()
        n_tokens = np.diff(codes.indptr)
        active = np.flatnonzero(n_tokens)
        peak = np.maximum.reduceat(codes.data, codes.indptr[active]) if len(active) else np.empty(0, dtype=np.float32)
        ratio = peak / self._usual[active]
        order = np.lexsort((active, -ratio))[:MOST_LATENTS]
        n_patches = record.grid.n_rows * record.grid.n_cols
        maps: list[dict[str, Any]] = []
        for latent in active[order].tolist():
            own = slice(int(codes.indptr[latent]), int(codes.indptr[latent + 1]))
            rank, value = codes.indices[own].astype(np.int64), codes.data[own]
            maps.append(heat(rank, value, n_patches, float(self._largest[latent]), most=MOST_HEAT))
        columns = {
            "latent": integers(active[order]),
            "peak": floats(peak[order]),
            "ratio": floats(ratio[order]),
            "n_tokens": integers(n_tokens[active[order]]),
            "label": texts([self._names[latent] for latent in active[order].tolist()]),
            "heat": objects(maps),
        }
        return Shard(columns=columns, meta={"id": record.video_id, "n_latents": len(active)})
