"""A frame of 4 x 2 patches, each 0.25 wide and 0.5 high; patch k has row k // 4 and column k % 4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from collect.data.perception_test import Segment, Track, Video
from collect.tokens.grid import TokenGrid, frame_spans
from features.labels.unit_labels import VideoLabels

FPS = 10.0


def make_grid(times_s: Sequence[float] = (0.0, 1.0)) -> TokenGrid:
    times = np.array(times_s, dtype=np.float64)
    return TokenGrid.uniform(
        n_rows=2, n_cols=4, spans_s=frame_spans(times, FPS), frame_ids=np.round(times * FPS).astype(np.int64)
    )


def make_track(
    id: int,
    label: str,
    boxes: Sequence[Sequence[float]],
    times_s: Sequence[float] = (0.0, 1.0),
    *,
    is_masked: bool | Sequence[bool] = False,
    is_occluder: bool = False,
) -> Track:
    times = np.array(times_s, dtype=np.float64)
    return Track(
        id=id,
        label=label,
        is_occluder=is_occluder,
        is_masked=np.broadcast_to(np.array(is_masked, dtype=bool), times.shape),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        frame_ids=np.round(times * FPS).astype(np.int64),
        times_s=times,
    )


def make_video(tracks: Sequence[Track] = (), actions: Sequence[Segment] = (), sounds: Sequence[Segment] = ()) -> Video:
    return Video(
        video_id="video",
        path=None,
        split="train",
        frame_rate=FPS,
        n_frames=40,
        height=100,
        width=200,
        tracks=tuple(tracks),
        actions=tuple(actions),
        sounds=tuple(sounds),
    )


def make_segment(label: str, start_s: float, end_s: float, parents: tuple[int, ...] = ()) -> Segment:
    return Segment(id=0, label=label, label_id=0, parent_objects=parents, start_s=start_s, end_s=end_s)


def units(entries: np.ndarray, label: int = 0) -> list[int]:
    return entries[entries[:, 1] == label, 0].tolist()


def negatives(labels: VideoLabels, label: int = 0) -> list[int]:
    return sorted(set(np.flatnonzero(labels.eligible)) - set(units(labels.touched, label)))


LEFT = [0.0, 0.0, 0.25, 1.0]
RIGHT = [0.75, 0.0, 1.0, 1.0]
