"""How bright the sampled frames of a video are: a rival of every other label, which no annotation gives.

    bright frame     as bright as the brightest quarter of the train videos' frames, or brighter
    dark frame       as dark as the darkest quarter of them, or darker

The pixels are not stored, so the videos are decoded once more, which takes about as long as decoding them for `collect`
did. The brightness of a frame is the mean luminance of its pixels, every eighth of either side.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Bool, Float64, UInt8
from tqdm import tqdm

from collect.artefact.folder import write_table
from collect.artefact.table import column, table_schema
from collect.artefact.table_input import read_found_table
from collect.data.perception_test import Video
from collect.printable import printable
from collect.reading import VideoRecord
from collect.video.decode import decode_frames
from collect.video.file import DecodeError
from features.division import ALONE, Division
from features.labels.unit_labels import Carrier, VideoLabels, collect_labels

log = logging.getLogger(__name__)

NAMES = ("bright frame", "dark frame")
TABLE = "brightness"
STEP_PX = 8
"""Distance of the pixels that are averaged; the mean of thousands of them is that of all."""
LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue (ITU-R BT.709)."""
BRIGHTNESS = table_schema(
    "One row per video and time step: how bright its frame is.",
    column("video_id", pa.string(), "video"),
    column("t", pa.int32(), "time step", least=0),
    column("luminance", pa.float64(), "mean luminance of the frame, 0 to 1; null where it cannot be decoded"),
)


def brightness_of(
    records: Sequence[VideoRecord],
    annotations: Mapping[str, Video],
    folder: Path,
    division: Division = ALONE,
) -> dict[str, Float64[np.ndarray, " n_t"]]:
    """The brightness of every sampled frame by video id: from the table of an earlier call, or from the videos.

    Args:
        records: videos of the store.
        annotations: where the video files may be, by video id.
        folder: of the stage; `brightness.parquet` is written there.
        division: processes that share the videos; each gets the result.
    """
    known: bool = division.agree(lambda: _is_complete(_read(folder), records))
    if not known:
        share = division.share(len(records))
        own = [records[index] for index in share]
        measured = [
            _measured(record, annotations.get(record.video_id))
            for record in tqdm(own, unit="videos", desc="brightness")
        ]
        luminance = division.join(np.concatenate([np.empty(0), *measured]))
        if division.is_first:
            write_table(folder / f"{TABLE}.parquet", _table(records, luminance), BRIGHTNESS)
        division.meet()
    table = _read(folder)
    assert table is not None, "it was there or has been written"
    return {str(video_id): rows["luminance"].to_numpy(np.float64) for video_id, rows in table.groupby("video_id")}


def frame_luminance(frames: UInt8[np.ndarray, "n_t height width 3"]) -> Float64[np.ndarray, " n_t"]:
    """Mean luminance of each frame, 0 to 1."""
    some = frames[:, ::STEP_PX, ::STEP_PX].astype(np.float64) / 255
    return np.asarray((some @ np.array(LUMINANCE)).mean(axis=(1, 2)), dtype=np.float64)


def quarters(
    records: Sequence[VideoRecord],
    brightness: Mapping[str, Float64[np.ndarray, " n_t"]],
    held_out: Bool[np.ndarray, " video"],
) -> tuple[float, float]:
    """Luminance from which on a frame is dark, downwards, and bright, upwards; by the frames of train videos alone."""
    parts = [brightness[record.video_id] for record, aside in zip(records, held_out, strict=True) if not aside]
    values = np.concatenate([np.empty(0), *parts])
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    dark, bright = np.quantile(values, [0.25, 0.75])
    return float(dark), float(bright)


def light_labels(luminance: Float64[np.ndarray, " n_t"], dark: float, bright: float) -> VideoLabels:
    """Labels of a video's frames; those of unknown brightness are neither positive nor negative."""
    degrees = ((luminance >= bright).astype(np.float64), (luminance <= dark).astype(np.float64))
    carriers = [Carrier(names=(name,), degree=degree) for name, degree in zip(NAMES, degrees, strict=True)]
    return collect_labels(NAMES, carriers, eligible=~np.isnan(luminance))


def _read(folder: Path) -> pd.DataFrame | None:
    return read_found_table(folder, TABLE, BRIGHTNESS)


def _is_complete(table: pd.DataFrame | None, records: Sequence[VideoRecord]) -> bool:
    return table is not None and table[["video_id", "t"]].equals(_table(records, None)[["video_id", "t"]])


def _table(records: Sequence[VideoRecord], luminance: Float64[np.ndarray, " frame"] | None) -> pd.DataFrame:
    sizes = [record.grid.n_t for record in records]
    return pd.DataFrame(
        {
            "video_id": pd.Series(np.repeat([record.video_id for record in records], sizes), dtype="str"),
            "t": np.concatenate([np.empty(0), *map(np.arange, sizes)]).astype(np.int32),
            "luminance": np.full(sum(sizes), np.nan) if luminance is None else luminance,
        }
    )


def _measured(record: VideoRecord, video: Video | None) -> Float64[np.ndarray, " n_t"]:
    path = video.path if video is not None and video.path is not None else Path(record.path)
    try:
        return frame_luminance(decode_frames(path, [int(frame) for frame in record.grid.frame_ids]))
    except DecodeError as error:
        log.warning("The brightness of %s is unknown: %s", printable(record.video_id), error)
        return np.full(record.grid.n_t, np.nan)
