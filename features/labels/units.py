"""Units of a store: its visual tokens; its frames (time steps) or videos, with activations max-pooled over tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from scipy import sparse

from collect.reading import VideoRecord


def units_of_tokens(video: VideoRecord, level: str) -> Int64[np.ndarray, " token"]:
    """Unit of each token of a video, from 0."""
    n_tokens, n_units = video.grid.n_tokens, count_units(video, level)
    return np.repeat(np.arange(n_units, dtype=np.int64), n_tokens // n_units)


def count_units(video: VideoRecord, level: str) -> int:
    """Number of units of a video."""
    return {"token": video.grid.n_tokens, "frame": video.grid.n_t, "video": 1}[level]


def unit_starts(videos: Sequence[VideoRecord], level: str) -> Int64[np.ndarray, " video_and_end"]:
    """First unit of each video, and the number of units."""
    sizes = [count_units(video, level) for video in videos]
    return np.cumsum([0, *sizes], dtype=np.int64)


def units_of(
    starts: Int64[np.ndarray, " video_and_end"], videos: Int64[np.ndarray, " video"]
) -> Int64[np.ndarray, " unit"]:
    """Units of some videos, video by video."""
    return np.concatenate(
        [np.empty(0, dtype=np.int64), *(np.arange(int(starts[v]), int(starts[v + 1])) for v in videos)]
    )


def max_pool(codes: sparse.csr_array, videos: Sequence[VideoRecord]) -> sparse.csr_array:
    """Largest activation of each latent over the tokens of each frame.

    Args:
        codes: [token, latent] of all tokens of the videos.
        videos: the videos, in the order of the tokens.

    Returns:
        [frame, latent].
    """
    frames_before = unit_starts(videos, "frame")
    frame_of_token = np.concatenate(
        [
            np.empty(0, dtype=np.int64),
            *(
                first + np.repeat(np.arange(video.grid.n_t), video.grid.n_tokens // video.grid.n_t)
                for video, first in zip(videos, frames_before[:-1], strict=True)
            ),
        ]
    )
    assert len(frame_of_token) == codes.shape[0], "the codes are those of the videos"
    entries = codes.tocoo()
    n_latents = codes.shape[1]
    cell = frame_of_token[entries.row] * n_latents + entries.col
    order = np.argsort(cell, kind="stable")
    cells, first = np.unique(cell[order], return_index=True)
    most = np.maximum.reduceat(entries.data[order], first) if len(cells) else entries.data
    return sparse.csr_array((most, (cells // n_latents, cells % n_latents)), (int(frames_before[-1]), n_latents))
