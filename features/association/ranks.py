"""Ranks of a latent's activations among all held-out units, looked up video by video.

Ranks need every activation of a latent, and the permutation test needs those of all latents in one video. So each
latent's sorted activations are kept as levels, which give the rank of any of them. Where a latent has more distinct
activations than levels, neighbours share a level, and tie.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64, UInt32
from scipy import sparse

from collect.reading import VideoRecord
from features.association.runs import Runs, SortedItems, sortable
from features.association.split_units import LevelUnits
from features.codes import Codes
from features.division import Division

MAX_LEVELS = 1 << 24
"""Levels of all latents together, of 12 bytes each; every latent has 256 in any case."""


class RankLevels:
    """Twice the mid-rank of each activation among the units of its latent, less that of a zero: whole numbers.

    Args:
        key: (latent << 32) | bits of the smallest activation of each level, ascending.
        twice_rank: of each level.
    """

    def __init__(self, key: Int64[np.ndarray, " level"], twice_rank: Int32[np.ndarray, " level"]) -> None:
        self._key = key
        self._twice_rank = twice_rank

    @classmethod
    def of(cls, codes: sparse.csc_array, first_latent: int = 0, most: int = MAX_LEVELS) -> RankLevels:
        """The levels of some latents.

        Args:
            codes: [unit, latent] on all units, above 0.
            first_latent: number of the first of these latents.
            most: levels that one latent may have.
        """
        sizes = np.diff(codes.indptr).astype(np.int64)
        latent = np.repeat(np.arange(codes.shape[1], dtype=np.int64), sizes)
        items = SortedItems.by(latent, sortable(codes.data))
        value = codes.data[items.order]
        before = codes.indptr[:-1].astype(np.int64)[items.key]
        # Equal activations share a level; of more distinct ones than levels, each level takes about as many units.
        middle = (items.tie_start + items.tie_stop) // 2 - before
        n_distinct = np.bincount(items.key[items.tie_start == np.arange(len(value))], minlength=codes.shape[1])
        width = np.where(n_distinct > most, sizes / most, 0.0)[items.key]
        level = np.where(width > 0, middle / np.where(width > 0, width, 1.0), items.tie_start - before).astype(np.int64)
        runs = Runs.between((items.key << 32) | level)
        own = items.key[runs.start]
        twice = codes.shape[0] - sizes[own] + runs.start + runs.stop - 2 * before[runs.start]
        key = ((own + first_latent) << 32) | sortable(value[runs.start])
        return cls(key, twice.astype(np.int32))

    @classmethod
    def joined(cls, parts: Sequence[RankLevels], division: Division) -> RankLevels:
        """The levels of consecutive latents, of this process and then of all."""
        key = np.concatenate([np.empty(0, dtype=np.int64), *(part._key for part in parts)])
        twice = np.concatenate([np.empty(0, dtype=np.int32), *(part._twice_rank for part in parts)])
        return cls(division.join(key), division.join(twice))

    def twice_ranks(
        self, latent: Int64[np.ndarray, " active"], value: Float32[np.ndarray, " active"]
    ) -> Int32[np.ndarray, " active"]:
        """Of activations that were among those that the levels were made of."""
        first, least, longest = self._by_latent
        at, stop, bits = first[latent], first[latent + 1], value.view(np.uint32)
        # A binary search of all at once, each within its latent's levels: the last level that is not above.
        step = 1 << max(longest - 1, 0).bit_length()
        while step := step >> 1:
            further = np.minimum(at + step, stop - 1)
            at = np.where(least[further] <= bits, further, at)
        return self._twice_rank[at]

    @cached_property
    def _by_latent(self) -> tuple[Int[np.ndarray, " latent_and_end"], UInt32[np.ndarray, " level"], int]:
        """First level of each latent, the bits of each level's smallest activation, and the most levels of a latent."""
        n_latents = int(self._key[-1] >> 32) + 1 if len(self._key) else 0
        first = np.searchsorted(self._key, np.arange(n_latents + 1, dtype=np.int64) << 32)
        narrow = first.astype(np.int32 if len(self._key) < 2**30 else np.int64)
        return narrow, (self._key & 0xFFFFFFFF).astype(np.uint32), int(np.diff(first).max(initial=0))


def levels_for_each(n_latents: int) -> int:
    """Levels that one of so many latents may have."""
    return max(MAX_LEVELS // max(n_latents, 1), 256)


class VideoRanks:
    """Ranks of the activations of some latents in one video, at each level of units.

    Args:
        codes: codes of all tokens.
        records: the videos that are permuted.
        latents: the latents, ascending.
        levels: by level of units.
    """

    def __init__(
        self,
        codes: Codes,
        records: Sequence[VideoRecord],
        latents: Int64[np.ndarray, " latent"],
        levels: dict[str, RankLevels],
    ) -> None:
        self._codes, self._records, self._levels = codes, records, levels
        self._n_latents = len(latents)
        self._place = np.full(codes.d_sae, -1, dtype=np.int64)
        self._place[latents] = np.arange(len(latents))

    def __call__(self, video: int, wanted: Bool[np.ndarray, " latent"]) -> dict[str, sparse.csc_array]:
        """Int32 [unit, latent] at each level, for the units of one video; zero for latents that are not wanted.

        `wanted` may end before the last latent: those after it are not wanted.
        """
        return dict(self._of(video, wanted))

    def _of(self, video: int, wanted: Bool[np.ndarray, " latent"]) -> Iterator[tuple[str, sparse.csc_array]]:
        record = self._records[video]
        rows = self._codes.rows(record.row_start, record.row_stop)
        column = self._place[rows.indices]
        asked = np.zeros(self._n_latents + 1, dtype=bool)  # of latents that are not among these the place is -1
        asked[: len(wanted)] = wanted
        kept = asked[column]
        indptr = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(kept)])[rows.indptr].astype(np.int32)
        shape = (rows.shape[0], self._n_latents)
        some = sparse.csr_array((rows.data[kept], column[kept].astype(np.int32), indptr), shape=shape).tocsc()
        for level, levels in self._levels.items():
            entries = LevelUnits.of_video(record, level).entries(some)
            latent = np.repeat(np.arange(self._n_latents, dtype=np.int64), np.diff(entries.indptr))
            twice = levels.twice_ranks(latent, entries.data)
            yield level, sparse.csc_array((twice, entries.indices, entries.indptr), shape=entries.shape)
