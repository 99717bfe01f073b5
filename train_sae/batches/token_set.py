"""Which rows of a store are trained on: whole videos on one side of the split, and filters within them.

A token set is decided before any row is read and is part of a training's settings. Filters are given as text:

    every:N     tokens of every N-th time step of each video
    sink:F      no tokens whose norm is more than F times the site's median norm (attention sinks)
    mask:FILE   rows that are true in a .npy file with one bool per row, such as those inside annotated boxes
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore
from train_sae.config import parse_filter

_BLOCK_ROWS = 2**14


@runtime_checkable
class VideoRows(Protocol):
    """The part of `collect.reading.VideoRecord` that a split by video needs."""

    @property
    def video_id(self) -> str:
        """The video's id."""
        ...

    @property
    def row_start(self) -> int:
        """First row of the video."""
        ...

    @property
    def row_stop(self) -> int:
        """One past the last row of the video."""
        ...


class RowRange(NamedTuple):
    """Consecutive rows of a store."""

    start: int
    stop: int


def n_rows(ranges: Sequence[RowRange]) -> int:
    """Number of rows in all the ranges."""
    return sum(rows.stop - rows.start for rows in ranges)


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Rows of a store: those in the ranges and, if there is a mask, true in it."""

    ranges: tuple[RowRange, ...]
    """Disjoint ranges, in ascending order."""
    kept: Bool[np.ndarray, " row"] | None = None
    """One value per row of the store; if None, all rows of the ranges."""

    @property
    def n_tokens(self) -> int:
        """Number of rows in the set."""
        if self.kept is None:
            return n_rows(self.ranges)
        return sum(int(self.kept[rows.start : rows.stop].sum()) for rows in self.ranges)


@dataclass(frozen=True)
class VideoSplit:
    """The rows of a store, by the side of the split that their video is on."""

    train: tuple[RowRange, ...]
    held_out: tuple[RowRange, ...]


def split_by_video(videos: Sequence[VideoRows], held_out: Collection[str]) -> VideoSplit:
    """Divide a store's rows so that no video is on both sides.

    Args:
        videos: the videos of the store, in the order of their rows.
        held_out: ids of the held-out ones.
    """
    train, apart = list[RowRange](), list[RowRange]()
    for video in videos:
        (apart if video.video_id in held_out else train).append(RowRange(video.row_start, video.row_stop))
    return VideoSplit(train=tuple(train), held_out=tuple(apart))


def filtered_rows(store: ActivationStore, site: str, filters: Sequence[str]) -> Bool[np.ndarray, " row"] | None:
    """Rows that pass all the filters; None if there is no filter.

    Args:
        store: the store.
        site: the site whose norms `sink` looks at; `sink` reads the site once.
        filters: see the module.

    Raises:
        UserError: a filter is not one of the forms, or its file does not fit the store.
    """
    if not filters:
        return None
    kept = np.ones(store.n_tokens, dtype=np.bool_)
    for text in filters:
        kind, value = parse_filter(text)
        if kind == "mask":
            kept &= _mask(Path(value), store.n_tokens)
            continue
        limit = float(value) * store.moments(site).median_norm if kind == "sink" else 0.0
        shown = f"filter {printable(text)}"
        with tqdm(total=store.n_tokens, desc=shown, unit="token", unit_scale=True, delay=2) as progress:
            for start in range(0, store.n_tokens, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, store.n_tokens)
                if kind == "sink":
                    kept[start:stop] &= (store.read(site, start, stop).float().norm(dim=1) <= limit).numpy()
                else:
                    kept[start:stop] &= store.coords(start, stop)[:, 1] % int(value) == 0
                progress.update(stop - start)
    return kept


def _mask(path: Path, n_tokens: int) -> Bool[np.ndarray, " row"]:
    try:
        mask = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--tokens mask:{path} cannot be read ({error}): name a .npy file of bool.") from None
    if mask.dtype != np.bool_ or mask.shape != (n_tokens,):
        raise UserError(
            f"--tokens mask:{path} holds {mask.dtype} of shape {mask.shape} where bool of shape ({n_tokens},) is "
            "needed: write one value per row of the activation store."
        )
    return mask
