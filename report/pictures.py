"""Pictures of latents for the report: those that the features stage drew, and new ones for latents that it left out.

Pictures are embedded in the page, so that it can be moved and mailed as one file.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from collect.artefact.run_data import recorded_path
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from collect.printable import printable
from features.codes import Codes
from features.labels.corpus import Corpus
from features.pictures.media import draw_exemplars, read_picture
from report.record import Features, Record

MIME = {".jpg": "image/jpeg", ".png": "image/png"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One exemplar strip."""

    source: Markup
    """Data URI; longer than any text from outside that the page shows."""
    width_px: int
    height_px: int
    video_id: str
    split: str
    time_s: float
    activation: float


def pictures(record: Record, latents: Sequence[int], n: int) -> tuple[dict[int, list[Picture]], list[str]]:
    """Find or draw up to `n` exemplar strips of each latent, by activation.

    Returns:
        The strips by latent, without latents that have none; and, as sentences, what is wrong with those that are left
        out or had to be redrawn.
    """
    features = record.features
    if features is None:
        return {}, []
    exemplars = features.exemplars
    chosen = exemplars[exemplars["latent"].isin(latents) & (exemplars["rank"] < n)]
    chosen = chosen.sort_values(["latent", "rank"], ignore_index=True)
    notes: list[str] = []
    found = _embed(chosen, features.folder, notes, _hashes(features.summary))
    left_out = chosen[~chosen.index.isin(list(found))]
    if len(left_out):
        with tempfile.TemporaryDirectory() as folder:
            table = _draw(record, features, left_out.assign(media="", media_frame=""), Path(folder), notes)
            found |= _embed(table, Path(folder), notes, {})
    by_latent: dict[int, list[Picture]] = {}
    for place, latent in enumerate(chosen["latent"]):
        if place in found:
            by_latent.setdefault(int(latent), []).append(found[place])
    return by_latent, notes


def _draw(record: Record, features: Features, chosen: pd.DataFrame, folder: Path, notes: list[str]) -> pd.DataFrame:
    """Draw as the features stage would have; what cannot be drawn is noted and stays without a path."""
    try:
        drawn = draw_exemplars(
            chosen, features.catalogue, sorted(set(chosen["latent"])), *_codes_and_corpus(record, features), folder
        ).set_index(chosen.index)
    except UserError as error:
        names = ", ".join(str(latent) for latent in sorted(set(chosen["latent"])))
        notes.append(f"Not all pictures of the latents {names} could be drawn: {error}")
        return chosen
    notes += [
        f"There are no pictures of the video {printable(video_id)}: it is not there or cannot be decoded."
        for video_id in sorted(set(drawn.loc[drawn["media"] == "", "video_id"]))
    ]
    return drawn


def _codes_and_corpus(record: Record, features: Features) -> tuple[Codes, Corpus]:
    """What drawing needs.

    Raises:
        UserError: activations, codes or annotations are missing or do not belong together.
    """
    if record.store is None:
        raise UserError("the activations are not there: restore them with `video-sae archive --restore`.")
    annotations = {video.video_id: video for video in load_dataset(_data_folder(record)).videos}
    held_out = record.held_out
    corpus = Corpus(
        records=record.store.videos,
        annotations=[annotations.get(video.video_id) for video in record.store.videos],
        held_out=np.array([video.video_id in held_out for video in record.store.videos], dtype=bool),
        labels={},  # drawing takes boxes and segments from the annotations
    )
    n_tokens, d_sae = record.store.n_tokens, len(features.catalogue)
    return Codes.open(features.folder / "codes.zarr", n_tokens=n_tokens, d_sae=d_sae), corpus


def _data_folder(record: Record) -> Path:
    """Where the videos and annotations lie that the features stage took, wherever this is called from.

    Raises:
        UserError: neither it nor the collect stage has recorded that.
    """
    for name in ("features", "collect"):
        stage = record.stage(name)
        path = recorded_path(stage.folder, name, "data", record.run) if stage.config else None
        if path is not None:
            return path
    raise UserError("no config.json of the run says where its videos lie: run `video-sae features` again with --data.")


def _hashes(summary: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files that the summary of a finished stage names."""
    files: Any = summary.get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return {name: entry["sha256"] for name, entry in entries if isinstance(entry, dict) and "sha256" in entry}


def _embed(exemplars: pd.DataFrame, folder: Path, notes: list[str], hashes: Mapping[str, str]) -> dict[int, Picture]:
    """The pictures that the rows name, by the rows' index; one that cannot be read, or is a different one, is noted."""
    found: dict[int, Picture] = {}
    for row in exemplars.itertuples():
        name = str(row.media)
        if not name:
            continue
        try:
            content, (width, height) = read_picture(folder, name, hashes.get(name))
        except UserError as error:
            notes.append(str(error))
            continue
        found[int(row.Index)] = Picture(
            source=Markup("data:{};base64,{}").format(
                MIME[Path(name).suffix], base64.b64encode(content).decode("ascii")
            ),
            width_px=width,
            height_px=height,
            video_id=str(row.video_id),
            split=str(row.split),
            time_s=float(row.time_s),
            activation=float(row.activation),
        )
    return found
