"""When each latent is active: firing rate, size, persistence in time and coherence in space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from collect.reading import VideoRecord
from features.association.statistics import PairSums, pair_sums
from features.codes import BLOCK_TOKENS, Codes


@dataclass(frozen=True, kw_only=True)
class Activity:
    """Per latent, over all stored tokens."""

    n_tokens: int
    n_tokens_active: Int64[np.ndarray, " latent"]
    n_videos_active: Int64[np.ndarray, " latent"]
    max_activation: Float64[np.ndarray, " latent"]
    mean_active: Float64[np.ndarray, " latent"]
    """Mean activation over the tokens where the latent is active; NaN where it never is."""
    temporal_autocorrelation: Float64[np.ndarray, " latent"]
    """Correlation of a patch's activation with that of the same patch one time step later."""
    spatial_autocorrelation: Float64[np.ndarray, " latent"]
    """The same for patches beside or below each other (Moran's I with these neighbours)."""
    mean_run_length: Float64[np.ndarray, " latent"]
    """Mean number of consecutive time steps for which a patch stays active."""

    @property
    def firing_rate(self) -> Float64[np.ndarray, " latent"]:
        """Share of tokens at which the latent is active."""
        return self.n_tokens_active / max(self.n_tokens, 1)


def measure_activity(codes: Codes, videos: Sequence[VideoRecord]) -> Activity:
    """Measure all latents in one pass over the codes."""
    d_sae = codes.d_sae
    n_active, n_videos = np.zeros(d_sae, dtype=np.int64), np.zeros(d_sae, dtype=np.int64)
    total, most = np.zeros(d_sae), np.zeros(d_sae)
    in_time, in_space = _no_pairs(d_sae), _no_pairs(d_sae)
    for batch in video_batches(videos):
        block = codes.rows(batch[0].row_start, batch[-1].row_stop)
        n_active += np.bincount(block.indices, minlength=d_sae)
        total += np.bincount(block.indices, weights=block.data, minlength=d_sae)
        np.maximum.at(most, block.indices, block.data)
        for video in batch:
            first = video.row_start - batch[0].row_start
            own = block.indices[block.indptr[first] : block.indptr[first + video.grid.n_tokens]]
            n_videos[np.unique(own)] += 1
        in_time += pair_sums(block, *_neighbours(batch, time=True))
        in_space += pair_sums(block, *_neighbours(batch, time=False))
    mean = np.divide(total, n_active, out=np.full(d_sae, np.nan), where=n_active > 0)
    # Every run of active steps has one step more than it has steps that are followed by an active one.
    runs = n_active - in_time.both_active
    return Activity(
        n_tokens=codes.n_tokens,
        n_tokens_active=n_active,
        n_videos_active=n_videos,
        max_activation=most,
        mean_active=mean,
        temporal_autocorrelation=in_time.correlation(),
        spatial_autocorrelation=in_space.correlation(),
        mean_run_length=np.divide(n_active, runs, out=np.full(d_sae, np.nan), where=runs > 0),
    )


def video_batches(videos: Sequence[VideoRecord], n_tokens: int = BLOCK_TOKENS) -> Iterator[list[VideoRecord]]:
    """Consecutive videos with about `n_tokens` tokens in all, and at least one video."""
    batch: list[VideoRecord] = []
    for video in videos:
        if batch and video.row_stop - batch[0].row_start > n_tokens:
            yield batch
            batch = []
        batch.append(video)
    if batch:
        yield batch


def _neighbours(
    batch: Sequence[VideoRecord], *, time: bool
) -> tuple[Int64[np.ndarray, " pair"], Int64[np.ndarray, " pair"]]:
    """Rows of the batch, as pairs: one step apart in time, or one patch apart to the right or down."""
    firsts: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    seconds: list[np.ndarray] = [np.empty(0, dtype=np.int64)]
    for video in batch:
        grid = video.grid
        rows = np.arange(grid.n_tokens).reshape(grid.n_t, grid.n_rows, grid.n_cols)
        rows += video.row_start - batch[0].row_start
        steps = [(rows[:-1], rows[1:])] if time else [(rows[:, :, :-1], rows[:, :, 1:]), (rows[:, :-1], rows[:, 1:])]
        firsts += [first.reshape(-1) for first, _ in steps]
        seconds += [second.reshape(-1) for _, second in steps]
    return np.concatenate(firsts), np.concatenate(seconds)


def _no_pairs(n_latents: int) -> PairSums:
    zero = np.zeros(n_latents)
    return PairSums(n_pairs=0, a=zero, b=zero, aa=zero, bb=zero, ab=zero, both_active=zero.astype(np.int64))
