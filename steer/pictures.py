"""Pictures of latents for the report: those that the features stage drew, and drawn now for latents that it left out.

Pictures are embedded in the page, so that it can be moved and mailed as one file.
"""

from __future__ import annotations

import base64
import io
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from collect.errors import UserError
from collect.perception_test import load_dataset
from features.corpus import Corpus
from features.encode import Codes
from features.media import draw_exemplars
from steer.record import Features, Record

log = logging.getLogger(__name__)

MIME = {".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One exemplar strip."""

    source: str
    """Data URI."""
    width_px: int
    height_px: int
    video_id: str
    split: str
    time_s: float
    activation: float


def pictures(record: Record, latents: Sequence[int], n: int) -> dict[int, list[Picture]]:
    """Return up to `n` exemplar strips of each latent, by activation; latents without any picture are left out."""
    features = record.features
    if features is None:
        return {}
    exemplars = features.exemplars
    chosen = exemplars[exemplars["latent"].isin(latents) & (exemplars["rank"] < n)]
    drawn = _embed(chosen, features.folder)
    left_out = [latent for latent in latents if latent not in drawn]
    if left_out and (chosen["latent"].isin(left_out)).any():
        with tempfile.TemporaryDirectory() as folder:
            table = _draw(record, features, chosen[chosen["latent"].isin(left_out)], left_out, Path(folder))
            drawn |= _embed(table, Path(folder))
    return drawn


def _draw(
    record: Record, features: Features, chosen: pd.DataFrame, latents: Sequence[int], folder: Path
) -> pd.DataFrame:
    """Draw as the features stage would have; without the videos' annotations or codes, leave the table as it is."""
    assert record.store is not None, "features are there, so the store that they were made from was read"
    arguments = record.stage("features").config.get("arguments", {})
    data = arguments.get("data") or record.stage("collect").config.get("arguments", {}).get("data", "")
    try:
        annotations = {video.video_id: video for video in load_dataset(Path(data)).videos}
        held_out = record.held_out
        corpus = Corpus(
            records=record.store.videos,
            annotations=[annotations.get(video.video_id) for video in record.store.videos],
            held_out=np.array([video.video_id in held_out for video in record.store.videos], dtype=bool),
            labels={},  # drawing takes boxes and segments from the annotations
        )
        codes = Codes.open(features.folder / "codes.zarr")
        return draw_exemplars(chosen, features.catalogue, latents, codes, corpus, folder)
    except UserError as error:
        log.warning("Latents %s are shown without pictures: %s", ", ".join(map(str, latents)), error)
        return chosen


def _embed(exemplars: pd.DataFrame, folder: Path) -> dict[int, list[Picture]]:
    found: dict[int, list[Picture]] = {}
    for row in exemplars.sort_values(["latent", "rank"]).itertuples():
        path = folder / str(row.media)
        # A table is input from outside: nothing but a picture below its own folder is put into the page.
        inside = path.resolve().is_relative_to(folder.resolve())
        if not row.media or not inside or path.suffix not in MIME or not path.is_file():
            continue
        content = path.read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        found.setdefault(int(row.latent), []).append(
            Picture(
                source=f"data:{MIME[path.suffix]};base64,{base64.b64encode(content).decode('ascii')}",
                width_px=width,
                height_px=height,
                video_id=str(row.video_id),
                split=str(row.split),
                time_s=float(row.time_s),
                activation=float(row.activation),
            )
        )
    return found
