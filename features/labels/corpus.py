"""The videos of a store with their split, strata and labels: what latents are compared with."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from tqdm import tqdm

from collect.data.perception_test import Video
from collect.data.split import held_out_ids
from collect.reading import VideoRecord
from features.labels.brightness import NAMES, light_labels, quarters
from features.labels.labelling import ANNOTATED, LIGHT, PLACES, TIMES, Vocabulary, is_derived, label_video, names_of
from features.labels.place_labels import PlaceLabels
from features.labels.regions import RegionLabels, join_regions
from features.labels.scenes import PlaceGrid
from features.labels.unit_labels import Space, UnitLabels, VideoLabels, stack
from features.labels.units import count_units

log = logging.getLogger(__name__)


class Label(NamedTuple):
    """One label: its space and its column there."""

    space: Space
    column: int


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Videos in the order of the store, with the labels that enough of them show."""

    records: Sequence[VideoRecord]
    annotations: Sequence[Video | None]
    """What is known about each video; None where nothing is."""
    held_out: Bool[np.ndarray, " video"]
    labels: Mapping[Space, UnitLabels]
    """Labels of all units of all videos; spaces without a label are left out."""

    @cached_property
    def places(self) -> PlaceGrid:
        """Places and times that are told apart."""
        return PlaceGrid(self.records)

    def split(self, *, held_out: bool) -> Int64[np.ndarray, " video"]:
        """Videos of a split."""
        return np.flatnonzero(self.held_out == held_out)

    def all_labels(self) -> list[Label]:
        """Every label, space by space."""
        return [Label(space, column) for space, labels in self.labels.items() for column in range(len(labels.names))]

    def first_labels(self) -> dict[Space, int]:
        """Number in `all_labels` of the first label of each space."""
        sizes = [len(labels.names) for labels in self.labels.values()]
        return dict(zip(self.labels, np.cumsum([0, *sizes]).tolist(), strict=False))

    def name(self, label: Label) -> str:
        """Name of a label."""
        return self.labels[label.space].names[label.column]

    def strata(self, videos: Int64[np.ndarray, " video"]) -> list[tuple[object, ...]]:
        """What must be equal for two videos to be given each other's annotations."""
        found = [self.annotations[video] for video in videos]
        return [(video is not None, *(video.strata if video is not None else ())) for video in found]

    @property
    def annotated(self) -> Bool[np.ndarray, " video"]:
        """Videos of which anything is known."""
        return np.array([video is not None for video in self.annotations], dtype=bool)


def build_corpus(
    records: Sequence[VideoRecord],
    annotations: Mapping[str, Video],
    *,
    min_videos: int,
    brightness: Mapping[str, Float64[np.ndarray, " n_t"]] | None = None,
) -> Corpus:
    """Label all videos with the names that at least `min_videos` videos of each split show.

    Names with exactly the same positive units in one space (every ball is red) are one label, under the longest of
    them. Where any name is left, places and times are labels too.

    Args:
        records: videos of the store, in its order.
        annotations: what is known about each video, by video id.
        min_videos: see above.
        brightness: of each frame, by video id, for labels of light; none if not given.
    """
    videos = [annotations.get(record.video_id) for record in records]
    aside = held_out_ids((record.video_id, record.split) for record in records)
    held_out = np.array([record.video_id in aside for record in records], dtype=bool)
    vocabulary = _frequent_names(videos, held_out, min_videos)
    parts, region = _label_all(records, videos, vocabulary)
    labels: dict[Space, UnitLabels] = {}
    for space, names in vocabulary.items():
        stacked = stack(parts[space], names)
        n_videos = _count_videos(parts.pop(space), len(names), held_out)
        kept = [label for label in _distinct(stacked) if n_videos[label] >= min_videos]
        if kept:
            own = stacked.select(np.arange(len(stacked.eligible)), kept)
            labels[space] = RegionLabels(own, region) if space.level == "token" else own
        else:
            _report_rarity(space, int(n_videos.max()), min_videos)
    if labels and brightness is not None:
        labels |= _light_labels(records, brightness, held_out, min_videos)
    if labels:
        labels |= _place_labels(records, PlaceGrid(records))
    return Corpus(records=records, annotations=videos, held_out=held_out, labels=labels)


def _label_all(
    records: Sequence[VideoRecord], videos: Sequence[Video | None], vocabulary: Vocabulary
) -> tuple[dict[Space, list[VideoLabels]], Int32[np.ndarray, " token"]]:
    """The labels of each video, those of tokens by region, and the region of each token among those of all videos."""
    parts: dict[Space, list[VideoLabels]] = {space: [] for space in vocabulary}
    region = np.zeros(records[-1].row_stop if records else 0, dtype=np.int32)
    n_regions = 0
    progress = tqdm(records, unit="videos", desc="labels", disable=not vocabulary)
    for record, video in zip(progress, videos, strict=True):
        own = _label(record, video, vocabulary)
        of_tokens = {space: labels for space, labels in own.items() if space.level == "token"}
        if of_tokens:
            regions, by_region = join_regions(of_tokens)
            region[record.row_start : record.row_stop] = n_regions + regions
            n_regions += int(regions.max(initial=-1)) + 1
            own |= by_region
        for space, labels in own.items():
            parts[space].append(labels)
    return parts, region


def _light_labels(
    records: Sequence[VideoRecord],
    brightness: Mapping[str, Float64[np.ndarray, " n_t"]],
    held_out: Bool[np.ndarray, " video"],
    min_videos: int,
) -> dict[Space, UnitLabels]:
    """Bright and dark frames, where enough videos of each split have some."""
    dark, bright = quarters(records, brightness, held_out)
    parts = [light_labels(brightness[record.video_id], dark, bright) for record in records]
    kept = np.flatnonzero(_count_videos(parts, len(NAMES), held_out) >= min_videos).tolist()
    stacked = stack(parts, NAMES)
    return {LIGHT: stacked.select(np.arange(len(stacked.eligible)), kept)} if kept else {}


def _place_labels(records: Sequence[VideoRecord], places: PlaceGrid) -> dict[Space, UnitLabels]:
    """Place and time of every token; every token without the name is a negative."""
    nothing = np.empty(0, dtype=np.int32)
    cell = np.concatenate([nothing, *(places.cells(record.grid).astype(np.int32) for record in records)])
    used = np.unique(cell)
    labels: dict[Space, UnitLabels] = {}
    for space, cells in zip((PLACES, TIMES), places.labels(), strict=True):
        names, in_cells = tuple(cells), np.stack([*cells.values()], axis=1)
        kept = _distinct(PlaceLabels(names, in_cells, used))  # tokens of one cell have the same labels
        labels[space] = PlaceLabels(tuple(names[label] for label in kept), in_cells[:, kept], cell)
    return labels


def _label(record: VideoRecord, video: Video | None, vocabulary: Vocabulary) -> dict[Space, VideoLabels]:
    if video is not None:
        return label_video(video, record.grid, vocabulary)
    return {space: _unlabelled(record, space) for space in vocabulary}


def _unlabelled(record: VideoRecord, space: Space) -> VideoLabels:
    n_units = count_units(record, space.level)
    nothing, none = np.empty((0, 2), dtype=np.int64), np.zeros(n_units, dtype=bool)
    return VideoLabels(
        n_units=n_units, positive=nothing, touched=nothing, hidden=nothing, eligible=none, background=none
    )


def _frequent_names(
    videos: Sequence[Video | None], held_out: Bool[np.ndarray, " video"], min_videos: int
) -> dict[Space, tuple[str, ...]]:
    """Names in the annotations of enough videos; whether they reach any unit there is decided later."""
    counts: dict[tuple[Space, bool], Counter[str]] = {
        (space, aside): Counter() for space in ANNOTATED for aside in (False, True)
    }
    for video, aside in zip(videos, held_out, strict=True):
        if video is not None:
            for space, names in names_of(video).items():
                counts[space, bool(aside)].update(names)
    frequent: dict[Space, tuple[str, ...]] = {}
    for space in ANNOTATED:
        train, held = counts[space, False], counts[space, True]
        names = tuple(sorted(name for name in train if min(train[name], held[name]) >= min_videos))
        if names:
            frequent[space] = names
        elif train or held:
            _report_rarity(space, max(min(train[name], held[name]) for name in {*train, *held}), min_videos)
    return frequent


def _report_rarity(space: Space, most: int, min_videos: int) -> None:
    log.info(
        "No %s label is shown by %d videos of both splits (the most frequent by %d); --min-videos sets this.",
        "/".join(space),
        min_videos,
        most,
    )


def _count_videos(
    parts: Sequence[VideoLabels], n_labels: int, held_out: Bool[np.ndarray, " video"]
) -> Int64[np.ndarray, " label"]:
    """Videos with positive units of each label, in the split that has fewer."""
    n_videos = np.zeros((2, n_labels), dtype=np.int64)
    for part, aside in zip(parts, held_out, strict=True):
        n_videos[int(aside), np.unique(part.positive[:, 1])] += 1
    return n_videos.min(axis=0)


def _distinct(labels: UnitLabels) -> list[int]:
    """One label of each set with the same positive units: the longest that is not derived, then by alphabet."""
    positive = labels.positive.tocsc()
    first_with: dict[bytes, int] = {}
    keys = [(is_derived(name), -len(name), name) for name in labels.names]
    for label in sorted(range(len(keys)), key=keys.__getitem__):
        units = np.sort(positive.indices[positive.indptr[label] : positive.indptr[label + 1]])
        first_with.setdefault(units.astype(np.int64).tobytes(), label)
    return sorted(first_with.values())
