"""The activation store: residuals of every visual token of every collected video, and where each token lies.

    RUN/activations/
      config.json          arguments, versions, hashes of the inputs; of the stage `collect`
      manifest.json        written last: sites, sizes, model, ranks in order, failures
      rank-0.zarr/         one array [token, d_in] per site, and `coords` [token, 4] = (video, t, row, column)
      rank-0.jsonl         commit log: which rows are valid, a record per video, moments

A rank's arrays are long enough for all rows that it could write; the log says how many it has. Plain zarr opens them.
`ActivationStore` reads shard files itself, as fast as the disk, and verifies every checksum. bfloat16,
which Zarr lacks, is stored as uint16 with the attribute `logical_dtype`. Writing is in `collect.store.writer`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32
from torch import Tensor

from collect.artefact.inside import inside
from collect.errors import UserError
from collect.store.manifest import MANIFEST_NAME as MANIFEST_NAME
from collect.store.manifest import MANIFEST_REMEDY, Manifest, read_manifest
from collect.store.moments import Moments, RunningMoments
from collect.store.rank_log import COORDS, RankLog
from collect.store.shards import Shard, damaged, open_shard, read_rows
from collect.store.video_record import Failure, VideoRecord


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rank:
    folder: Path
    row_start: int
    n_tokens: int
    moments: Mapping[str, RunningMoments]
    log: RankLog


class ActivationStore:
    """A finished activation store, for reading; get one with `open`."""

    def __init__(self, folder: Path, manifest: Manifest, ranks: list[_Rank], videos: list[VideoRecord]) -> None:
        self.folder = folder
        self._manifest = manifest
        self._ranks = ranks
        self.videos: tuple[VideoRecord, ...] = tuple(videos)
        """Collected videos in the order of their rows; `videos[i].index` is i."""

    @classmethod
    def open(cls, folder: Path) -> "ActivationStore":
        """Open the folder `RUN/activations`.

        Raises:
            UserError: there is no store, it is not finished, is of an unknown version, or manifest or logs are damaged.
        """
        manifest = read_manifest(folder)
        logs = [RankLog.read(manifest.log(entry)) for entry in manifest.ranks]
        difference = next(manifest.differences(logs), None)
        if difference is not None:
            raise damaged(manifest.path, difference, MANIFEST_REMEDY)
        ranks: list[_Rank] = []
        videos: list[VideoRecord] = []
        row_start = 0
        for entry, log in zip(manifest.ranks, logs, strict=True):
            for video in log.videos:
                rows = {"row_start": video.row_start + row_start, "row_stop": video.row_stop + row_start}
                videos.append(replace(video, **rows, index=len(videos)))
            ranks.append(
                _Rank(
                    folder=manifest.zarr(entry),
                    row_start=row_start,
                    n_tokens=log.n_rows,
                    moments=log.moments(),
                    log=log,
                )
            )
            row_start += log.n_rows
        return cls(folder, manifest, ranks, videos)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the stored sites."""
        return tuple(self._manifest.layout.sites)

    @property
    def n_tokens(self) -> int:
        """Number of rows."""
        return sum(rank.n_tokens for rank in self._ranks)

    @property
    def model(self) -> dict[str, Any]:
        """`VideoVlm.describe` of the model that was collected."""
        return dict(self._manifest.layout.model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of what is stored: the model's fingerprint, every video's frames and rows, and every site's moments."""
        content = {
            "model": self.model["fingerprint"],
            "videos": [[v.video_id, v.row_start, v.row_stop, v.grid.frame_ids.tolist()] for v in self.videos],
            "moments": [{site: moments.to_json() for site, moments in rank.moments.items()} for rank in self._ranks],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def require_whole_grids(self) -> None:
        """Check that every token of every video's grid is stored, which is needed to look at neighbours.

        Raises:
            UserError: some are not.
        """
        if any(video.ranks is not None for video in self.videos):
            raise UserError(
                f"{self.folder} was collected with --tokens tracks, and whole grids are needed here: "
                "collect with --tokens all or every:N."
            )

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Videos that could not be collected, and why."""
        return self._manifest.failures

    def d_in(self, site: str) -> int:
        """Width of the activations at a site."""
        return self._site(site)["d_in"]

    def dtype(self, site: str) -> torch.dtype:
        """Type of the activations at a site, which is the model's own."""
        return getattr(torch, self._site(site)["dtype"])

    def stored_dtype(self, site: str) -> np.dtype[Any]:
        """Type of the bytes in a site's shards: uint16 for bfloat16, else that of `dtype`; little-endian."""
        self._site(site)
        return self._manifest.layout.arrays()[site][1]

    def read(self, site: str, start: int, stop: int) -> Float[Tensor, "token d_in"]:
        """Read activations of rows `start` to `stop` in the type that `dtype` says.

        Raises:
            UserError: there is no such site, or a shard is damaged.
        """
        stored = self._read(site, start, stop, self.d_in(site), self.stored_dtype(site))
        return torch.from_numpy(stored).view(self.dtype(site))

    def coords(self, start: int, stop: int) -> Int32[np.ndarray, "token 4"]:
        """Coordinates (index into `videos`, t, row, column) of rows `start` to `stop`.

        Raises:
            UserError: a shard is damaged.
        """
        coords = self._read(COORDS, start, stop, 4, np.dtype("<i4"))
        # On disk the first column counts all videos that were to be collected, on all ranks.
        starts = np.array([video.row_start for video in self.videos])
        coords[:, 0] = np.searchsorted(starts, np.arange(start, stop), side="right") - 1
        return coords

    def rows_of(self, video_id: str) -> slice:
        """Rows of one video.

        Raises:
            UserError: the store has no such video.
        """
        if video_id not in self._by_id:
            raise UserError(f"{self.folder} has no video {video_id!r}: it failed, or was not collected.")
        video = self._by_id[video_id]
        return slice(video.row_start, video.row_stop)

    def moments(self, site: str) -> Moments:
        """Moments of all activations at a site.

        Raises:
            UserError: there is no such site.
        """
        merged = RunningMoments(self.d_in(site))
        for rank in self._ranks:
            if rank.n_tokens:
                merged.merge(rank.moments[site])
        return merged.result()

    def shards(self, site: str) -> list[Shard]:
        """The shard files of a site (or of `coords`) in the order of their rows, for other readers.

        The rows of a chunk lie at `chunk_offsets[i]`, `chunk_rows * row_bytes` bytes, without gaps; only those below
        `row_stop` count.

        Raises:
            UserError: there is no such site, or a shard's index is damaged.
        """
        if site == COORDS:
            return self._open_shards(COORDS, 4 * 4)
        return self._open_shards(site, self.d_in(site) * self.stored_dtype(site).itemsize)

    @cached_property
    def _by_id(self) -> dict[str, VideoRecord]:
        return {video.video_id: video for video in self.videos}

    @cached_property
    def _opened(self) -> dict[str, list[Shard]]:
        return {}

    def _site(self, site: str) -> Mapping[str, Any]:
        if site not in self._manifest.layout.sites:
            raise UserError(f"{self.folder} has no site {site!r}: choose one of {', '.join(self.sites)}.")
        return self._manifest.layout.sites[site]

    def _open_shards(self, array: str, row_bytes: int) -> list[Shard]:
        if array not in self._opened:
            shard_rows, chunk_rows = self._manifest.layout.shard_rows, self._manifest.layout.chunk_rows
            self._opened[array] = [
                open_shard(
                    inside(rank.folder, f"{array}/c/{k}/0"),
                    row_start=rank.row_start + k * shard_rows,
                    row_stop=rank.row_start + min((k + 1) * shard_rows, rank.n_tokens),
                    n_chunks=shard_rows // chunk_rows,
                    chunk_rows=chunk_rows,
                    row_bytes=row_bytes,
                    chunk_crcs=rank.log.chunk_crcs(array, k),
                )
                for rank in self._ranks
                for k in range(-(-rank.n_tokens // shard_rows))
            ]
        return self._opened[array]

    def _read(self, array: str, start: int, stop: int, width: int, dtype: np.dtype[Any]) -> np.ndarray:
        assert 0 <= start <= stop <= self.n_tokens, f"rows {start} to {stop} of {self.n_tokens}"
        shards = self._open_shards(array, width * dtype.itemsize)  # which checks that there are that many rows
        out = np.empty((stop - start, width), dtype=dtype)
        for shard in shards:
            low, high = max(start, shard.row_start), min(stop, shard.row_stop)
            if low < high:
                read_rows(shard, low, high, out[low - start : high - start])
        return out
