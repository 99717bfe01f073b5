"""Pictures of the exemplars of some latents, written beside the tables.

    media/latent-00042/0-strip.jpg    the frames of the exemplar's video with the latent's activations
    media/latent-00042/0-frame.jpg    the exemplar's frame, larger

The drawing itself is in `features.pictures.render`.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from scipy import sparse
from tqdm import tqdm

from collect.artefact.folder import write_atomic
from collect.artefact.json_file import read_bytes
from collect.artefact.seal import BLANK, condition, seal
from collect.data.perception_test import Video
from collect.errors import UserError
from collect.pipeline import in_order
from collect.printable import printable
from collect.process.machine import default_workers
from collect.reading import VideoRecord
from collect.video.decode import DecodeError, decode_frames
from features.codes import Codes
from features.labels.corpus import Corpus
from features.labels.geometry import track_boxes
from features.labels.labelling import ANNOTATED, LIGHT, OBJECTS, PARTS, QUESTIONS, SIGHTS, STATES, label_video
from features.labels.names import normalise_name, object_names
from features.labels.things import CENTRE, THING
from features.labels.unit_labels import Space
from features.pictures.render import Outline, Panel, render_frame, render_strip

log = logging.getLogger(__name__)

MAX_PANELS = 8
"""Frames in a strip; of longer clips, evenly spaced ones and the exemplar's."""
DRAWN_EXEMPLARS = 4
"""Exemplars that are drawn per latent."""
JPEG_QUALITY = 88
SUFFIXES = (".jpg", ".png")
MAX_BYTES = 64 * 1024**2
"""Of a picture that is read."""


def choose_latents(catalogue: pd.DataFrame, n: int) -> list[int]:
    """The `n` latents to draw: labelled ones first, each by held-out AUROC; dead latents never."""
    live = catalogue[~catalogue["is_dead"]]
    order = np.lexsort((live["latent"], -live["top_auroc"].fillna(0.0).astype(float), ~live["labelled"].astype(bool)))
    return [int(latent) for latent in live["latent"].iloc[order[:n]]]


def draw_exemplars(
    exemplars: pd.DataFrame, catalogue: pd.DataFrame, latents: Sequence[int], codes: Codes, corpus: Corpus, folder: Path
) -> pd.DataFrame:
    """Write the pictures of some latents' first exemplars and return the exemplars with the paths filled in.

    Args:
        exemplars: as `features.exemplars` describes them.
        catalogue: gives each latent's maximum and label.
        latents: to draw.
        codes: give the activations over the whole clip.
        corpus: gives video files and annotations.
        folder: paths are relative to it; pictures that are there already are kept.

    Raises:
        UserError: an exemplar is none of these codes and videos.
    """
    exemplars = exemplars.reset_index(drop=True)
    wanted = exemplars[exemplars["latent"].isin(latents) & (exemplars["rank"] < DRAWN_EXEMPLARS)]
    index_of = {record.video_id: index for index, record in enumerate(corpus.records)}
    described = catalogue.set_index("latent")
    _check_places(wanted, index_of, corpus, codes.d_sae)
    # Video by video, so that each is decoded once, in threads while the one before is drawn.
    by_video = [(index_of[str(video_id)], rows) for video_id, rows in wanted.groupby("video_id", sort=True)]
    largest = max((_n_bytes(corpus.records[index]) for index, _ in by_video), default=0)
    workers = default_workers(2 * largest, len(by_video))

    def decoded(index: int) -> UInt8[np.ndarray, "n_t height width 3"] | DecodeError:
        record = corpus.records[index]
        try:
            return decode_frames(_path(record, corpus.annotations[index]), record.grid.frame_ids.tolist())
        except DecodeError as error:
            return error

    clips = in_order(decoded, (index for index, _ in by_video), workers=workers, ahead=1)
    with tqdm(total=len(wanted), unit="pictures", desc="media") as bar:
        for (index, rows), frames in zip(by_video, clips, strict=True):
            record, video = corpus.records[index], corpus.annotations[index]
            if isinstance(frames, DecodeError):
                log.warning("No pictures of %s: %s", printable(record.video_id), frames)
                bar.update(len(rows))
                continue
            clip_codes = codes.rows(record.row_start, record.row_stop).tocsc()
            for row in rows.itertuples():
                about = described.loc[int(row.latent)]
                label = None
                if isinstance(about["top_label"], str):
                    label = (Space(about["top_label_kind"], about["top_label_level"]), about["top_label"])
                activations = _on_grid(clip_codes, int(row.latent), record)
                place = (int(row.t), int(row.row), int(row.col))
                panels = list(_panels(frames, activations, record, video, label, place))
                stem = f"media/latent-{int(row.latent):05d}/{int(row.rank)}"
                maximum = float(about["max_activation"])
                peak = next(panel for panel in panels if panel.peak is not None)
                for column, name, image in (
                    ("media", f"{stem}-strip.jpg", render_strip(panels, maximum)),
                    ("media_frame", f"{stem}-frame.jpg", render_frame(peak, maximum)),
                ):
                    write_atomic(folder / name, jpeg(image))
                    exemplars.loc[row.Index, column] = name
                bar.update()
    return exemplars


def _check_places(exemplars: pd.DataFrame, index_of: Mapping[str, int], corpus: Corpus, d_sae: int) -> None:
    """Check that each exemplar is a latent at a token of a stored video.

    Raises:
        UserError: one is not.
    """
    for row in exemplars.itertuples():
        index = index_of.get(str(row.video_id))
        grid = None if index is None else corpus.records[index].grid
        inside = grid is not None and row.t < grid.n_t and row.row < grid.n_rows and row.col < grid.n_cols
        if not inside or row.latent >= d_sae:
            raise UserError(
                f"The exemplar of latent {row.latent} at {printable(row.video_id)}, t {row.t}, row {row.row}, column "
                f"{row.col} is not among the stored activations: run `video-sae features` again on these."
            )


def _n_bytes(record: VideoRecord) -> int:
    return len(record.grid.frame_ids) * record.height * record.width * 3


def _path(record: VideoRecord, video: Video | None) -> Path:
    """The video file: where the annotations' folder has it, else where it was collected from."""
    return video.path if video is not None and video.path is not None else Path(record.path)


def _on_grid(codes: sparse.csc_array, latent: int, record: VideoRecord) -> Float[np.ndarray, "n_t row col"]:
    grid = record.grid
    return codes[:, [latent]].toarray().reshape(grid.n_t, grid.n_rows, grid.n_cols)


def _panels(
    frames: UInt8[np.ndarray, "n_t height width 3"],
    activations: Float[np.ndarray, "n_t row col"],
    record: VideoRecord,
    video: Video | None,
    label: tuple[Space, str] | None,
    peak: tuple[int, int, int],
) -> Iterator[Panel]:
    grid = record.grid
    outlines = _outlines(record, video, label)
    during = _during(record, video, label)
    for t in shown_steps(grid.n_t, peak[0]):
        yield Panel(
            frame=frames[t],
            activations=activations[t],
            patches=grid.boxes,
            outlines=outlines[t],
            time_s=float(grid.spans_s[t, 0]),
            peak=peak[1:] if t == peak[0] else None,
            is_during=None if during is None else bool(during[t]),
        )


def shown_steps(n_t: int, peak: int) -> Int64[np.ndarray, " shown"]:
    """Up to `MAX_PANELS` evenly spaced time steps; the one nearest to the exemplar's is replaced by it."""
    steps = np.unique(np.round(np.linspace(0, n_t - 1, min(n_t, MAX_PANELS))).astype(np.int64))
    steps[np.abs(steps - peak).argmin()] = peak
    return steps


def _outlines(record: VideoRecord, video: Video | None, label: tuple[Space, str] | None) -> list[tuple[Outline, ...]]:
    grid = record.grid
    if video is None:
        return [()] * grid.n_t
    half_frame_s = 0.5 / video.frame_rate if video.frame_rate else 0.0
    boxes = track_boxes(video.tracks, grid.spans_s.mean(axis=1) - half_frame_s, half_frame_s)
    matching = _matching_tracks(video, label)
    return [
        tuple(
            Outline(label=track.label, box=boxes[index, t], is_match=track.id in matching)
            for index, track in enumerate(video.tracks)
            if not np.isnan(boxes[index, t, 0])
        )
        for t in range(grid.n_t)
    ]


def _matching_tracks(video: Video, label: tuple[Space, str] | None) -> frozenset[int]:
    """Ids of the tracks that carry the label, or that take part in the segments that do."""
    if label is None:
        return frozenset()
    space, name = label
    if space in (PARTS, SIGHTS):
        name = name.partition(" of ")[2].removesuffix(" at first sight")
    elif space == STATES:
        name = name.removeprefix(CENTRE).partition(" ")[2]
    if space in (OBJECTS, PARTS, SIGHTS, STATES):
        return frozenset(track.id for track in video.tracks if name in (*object_names(track.label), THING))
    segments = video.actions if space.kind == "action" else video.sounds
    return frozenset(
        parent for segment in segments if normalise_name(segment.label) == name for parent in segment.parent_objects
    )


def _during(record: VideoRecord, video: Video | None, label: tuple[Space, str] | None) -> Sequence[bool] | None:
    """Whether the label is there, at each time step; None for what a frame has no time of: objects, places."""
    if video is None or label is None or label[0] not in ANNOTATED or label[0] in (OBJECTS, PARTS, QUESTIONS, LIGHT):
        return None
    space, name = label
    found = label_video(video, record.grid, {space: (name,)})[space]
    step = found.positive[:, 0] if space.level == "frame" else found.positive[:, 0] * record.grid.n_t // found.n_units
    return np.isin(np.arange(record.grid.n_t), step).tolist()


def jpeg(image: Image.Image) -> bytes:
    """A picture as a file, with a seal in its comment."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True, comment=BLANK)
    return seal(buffer.getvalue())


def read_picture(folder: Path, name: str, sha256: str | None = None) -> tuple[bytes, tuple[int, int]]:
    """Read a picture that a table names.

    Args:
        folder: what the name is relative to, and what it must not lead out of.
        name: of the picture.
        sha256: of the file, where it is known which picture should be there.

    Returns:
        The file's content, and width and height in pixels.

    Raises:
        UserError: it lies elsewhere, is not there, is no picture, or was changed after it was drawn.
    """
    path, remedy = folder / name, "run `video-sae features` again to draw it"
    shown = printable(path, 4096)
    if "\0" in name or path.suffix not in SUFFIXES or not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{shown} is not a picture below {printable(folder, 4096)}: {remedy}.")
    content = read_bytes(path, remedy, MAX_BYTES)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(f"{shown} was changed after it was drawn: {remedy}.")
    match condition(content):
        case "changed":
            raise UserError(f"{shown} was changed after it was drawn: {remedy}.")
        case "unsealed":
            raise UserError(f"{shown} has no checksum, so that it may be damaged: {remedy}.")
        case "whole":
            pass
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            warnings.simplefilter("error")
            image.load()
            return content, image.size
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        raise UserError(f"{shown} is damaged ({printable(error, 120)}): {remedy}.") from None
