"""When each latent is active: firing rate, size, persistence in time and coherence in space."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy import sparse
from tqdm import tqdm

from collect.reading import VideoRecord
from features.association.runs import Runs
from features.codes import Codes
from features.division import ALONE, Division, blocks_of

MAX_NONZEROS = 2_000_000
"""Activations that are looked at at once, which takes about 100 bytes each."""


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """Sums over pairs of units (a, b), per latent, that give the correlation of a's and b's activations."""

    n_pairs: int
    a: Float64[np.ndarray, " latent"]
    b: Float64[np.ndarray, " latent"]
    aa: Float64[np.ndarray, " latent"]
    bb: Float64[np.ndarray, " latent"]
    ab: Float64[np.ndarray, " latent"]
    both_active: Int64[np.ndarray, " latent"]

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(
            n_pairs=self.n_pairs + other.n_pairs,
            a=self.a + other.a,
            b=self.b + other.b,
            aa=self.aa + other.aa,
            bb=self.bb + other.bb,
            ab=self.ab + other.ab,
            both_active=self.both_active + other.both_active,
        )

    def correlation(self) -> Float64[np.ndarray, " latent"]:
        """Pearson correlation over the pairs; NaN where a side never varies."""
        covariance = self.n_pairs * self.ab - self.a * self.b
        variance_a = self.n_pairs * self.aa - self.a**2
        variance_b = self.n_pairs * self.bb - self.b**2
        return _ratio(covariance, np.sqrt(np.clip(variance_a, 0, None) * np.clip(variance_b, 0, None)))


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


def measure_activity(codes: Codes, videos: Sequence[VideoRecord], division: Division = ALONE) -> Activity:
    """Measure all latents, each by the process whose share it is in; every process gets the result."""
    places = TokenPlaces.of(videos)
    own = division.share_by_cost(codes.n_active())
    parts = [_measure(codes.by_latent(latents), places) for latents in latent_blocks(codes, own, "activity")]
    names = [field.name for field in fields(Activity) if field.name != "n_tokens"]
    measured = {name: division.join(np.concatenate([getattr(part, name) for part in parts])) for name in names}
    return Activity(n_tokens=codes.n_tokens, **measured)


def latent_blocks(codes: Codes, own: range, what: str) -> Iterator[Int64[np.ndarray, " latent"]]:
    """Consecutive latents of a share, as many at a time as memory allows; one empty block where there are none."""
    n_active = codes.n_active()[own.start : own.stop]
    with tqdm(total=int(n_active.sum()), unit="activations", unit_scale=True, desc=what) as bar:
        for block in [*blocks_of(n_active, MAX_NONZEROS)] or [range(0)]:
            yield np.arange(own.start + block.start, own.start + block.stop)
            bar.update(int(n_active[block.start : block.stop].sum()))


@dataclass(frozen=True, kw_only=True)
class TokenPlaces:
    """Where each token of the store stands in its video."""

    video: Int32[np.ndarray, " token"]
    next_step: Int32[np.ndarray, " token"]
    """How many tokens further the same patch is one time step later; 0 in the last step."""
    next_row: Int32[np.ndarray, " token"]
    """The same for the patch below."""
    is_first_step: Bool[np.ndarray, " token"]
    is_first_row: Bool[np.ndarray, " token"]
    is_first_column: Bool[np.ndarray, " token"]
    is_last_column: Bool[np.ndarray, " token"]

    @classmethod
    def of(cls, videos: Sequence[VideoRecord]) -> TokenPlaces:
        """The places in some videos, in their order."""
        n_tokens = videos[-1].row_stop if videos else 0
        video, next_step, next_row = (np.zeros(n_tokens, dtype=np.int32) for _ in range(3))
        edges = [np.zeros(n_tokens, dtype=bool) for _ in range(4)]
        for index, record in enumerate(videos):
            own = slice(record.row_start, record.row_stop)
            grid = record.grid
            shape = (grid.n_t, grid.n_rows, grid.n_cols)
            video[own] = index
            next_step[own].reshape(shape)[:-1] = grid.n_rows * grid.n_cols
            next_row[own].reshape(shape)[:, :-1] = grid.n_cols
            edges[0][own].reshape(shape)[0] = True
            edges[1][own].reshape(shape)[:, 0] = True
            edges[2][own].reshape(shape)[:, :, 0] = True
            edges[3][own].reshape(shape)[:, :, -1] = True
        return cls(
            video=video,
            next_step=next_step,
            next_row=next_row,
            is_first_step=edges[0],
            is_first_row=edges[1],
            is_first_column=edges[2],
            is_last_column=edges[3],
        )


def _measure(codes: sparse.csc_array, places: TokenPlaces) -> Activity:
    """Measure some latents from their activations on all tokens."""
    n_latents = codes.shape[1]
    n_active = np.diff(codes.indptr).astype(np.int64)
    latent = np.repeat(np.arange(n_latents, dtype=np.int64), n_active)
    token, value = codes.indices, codes.data.astype(np.float64)
    runs = Runs.between((latent << 32) | places.video[token])
    most = np.zeros(n_latents)
    np.maximum.at(most, latent[runs.start], _largest(value, runs))
    further = places.next_step[token], (~places.is_last_column[token]).astype(np.int32), places.next_row[token]
    step, column, row = _following(codes, further)
    pairs = _Pairs(latent=latent, value=value, n_latents=n_latents)
    in_time = pairs.sums(further[0], step, ~places.is_first_step[token], int((places.next_step > 0).sum()))
    in_space = pairs.sums(further[1], column, ~places.is_first_column[token], int((~places.is_last_column).sum()))
    in_space += pairs.sums(further[2], row, ~places.is_first_row[token], int((places.next_row > 0).sum()))
    # Every run of active steps has one step more than it has steps that are followed by an active one.
    n_runs = n_active - in_time.both_active
    return Activity(
        n_tokens=codes.shape[0],
        n_tokens_active=n_active,
        n_videos_active=np.bincount(latent[runs.start], minlength=n_latents).astype(np.int64),
        max_activation=most,
        mean_active=_ratio(pairs.total(value), n_active),
        temporal_autocorrelation=in_time.correlation(),
        spatial_autocorrelation=in_space.correlation(),
        mean_run_length=_ratio(n_active.astype(np.float64), n_runs),
    )


def _following(
    codes: sparse.csc_array, further: tuple[Int32[np.ndarray, " active"], ...]
) -> list[Int32[np.ndarray, " active"]]:
    """Number of the activation of the same latent so many tokens further; −1 where there is none, or 0 is asked for."""
    number = np.full(codes.shape[0], -1, dtype=np.int32)
    found = [np.empty(codes.nnz, dtype=np.int32) for _ in further]
    ends: list[int] = codes.indptr.tolist()
    for start, stop in itertools.pairwise(ends):
        token = codes.indices[start:stop]
        number[token] = np.arange(start, stop, dtype=np.int32)
        for steps, own in zip(further, found, strict=True):
            own[start:stop] = number[token + steps[start:stop]]
        number[token] = -1
    return [np.where(steps > 0, own, np.int32(-1)) for steps, own in zip(further, found, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Activations in the order of (latent, token), of which some are paired with those some tokens further."""

    latent: Int64[np.ndarray, " active"]
    value: Float64[np.ndarray, " active"]
    n_latents: int

    def total(self, values: Float64[np.ndarray, " active"]) -> Float64[np.ndarray, " latent"]:
        """Sum per latent."""
        return np.bincount(self.latent, weights=values, minlength=self.n_latents).astype(np.float64)

    def sums(
        self,
        further: Int32[np.ndarray, " active"],
        following: Int32[np.ndarray, " active"],
        has_before: Bool[np.ndarray, " active"],
        n_pairs: int,
    ) -> PairSums:
        """Sums over all pairs of tokens, active or not.

        Args:
            further: how far the second token of the pair is in which each is the first; 0 where it is in none.
            following: number of the latent's activation at that second token; −1 where it is not active there.
            has_before: whether each is the second token of a pair.
            n_pairs: pairs of tokens.
        """
        firsts = np.flatnonzero(following >= 0)
        seconds = following[firsts]
        product = self.value[firsts] * self.value[seconds]
        leading, trailing = np.where(further > 0, self.value, 0.0), np.where(has_before, self.value, 0.0)
        return PairSums(
            n_pairs=n_pairs,
            a=self.total(leading),
            b=self.total(trailing),
            aa=self.total(leading**2),
            bb=self.total(trailing**2),
            ab=np.bincount(self.latent[firsts], weights=product, minlength=self.n_latents).astype(np.float64),
            both_active=np.bincount(self.latent[firsts], minlength=self.n_latents).astype(np.int64),
        )


def _largest(value: Float64[np.ndarray, " active"], runs: Runs) -> Float64[np.ndarray, " run"]:
    return np.maximum.reduceat(value, runs.start) if len(runs.start) else value


def _ratio(
    total: Float64[np.ndarray, " latent"], count: Int64[np.ndarray, " latent"] | Float64[np.ndarray, " latent"]
) -> Float64[np.ndarray, " latent"]:
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
