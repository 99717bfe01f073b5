"""The activation store: residuals of every visual token of every collected video, and where each token lies.

    RUN/activations/
      config.json          arguments, versions, hashes of the inputs; of the stage `collect`
      manifest.json        written last: sites, sizes, model, ranks in order, failures
      rank-0.zarr/         one array [token, d_in] a site, and `coords` [token, 4] = (video, t, row, column)
      rank-0.jsonl         commit log: which rows are valid, a record a video, moments

A rank's arrays are as long as the rows that it might have written; the log says how many it has. Plain zarr opens them.
`ActivationStore` reads shard files itself, which costs nothing over the disk, and verifies every checksum. bfloat16,
which Zarr lacks, is stored as uint16 with the attribute `logical_dtype`. Writing is in `collect.store_writer`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor

from collect.commit_log import read_log
from collect.errors import UserError
from collect.moments import Moments, RunningMoments
from collect.shards import Shard, damaged, open_shard, read_rows
from collect.token_grid import TokenGrid

FORMAT = "video-sae activations"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
COORDS = "coords"
STORED_DTYPES: dict[torch.dtype, str] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "uint16",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoRecord:
    """One collected video: its rows in the store, and what its tokens cover."""

    index: int
    """Position in the store's `videos`, and first column of `coords`."""
    video_id: str
    path: str
    split: str
    row_start: int
    row_stop: int
    grid: TokenGrid
    frame_rate: float
    n_frames: int
    """Frames of the video that decode and lie before the cut."""
    width: int
    height: int
    ranks: Int64[np.ndarray, " token"] | None = None
    """Which tokens of the grid are stored, by rank in its order; None stands for all."""

    @property
    def n_tokens(self) -> int:
        """Number of stored tokens."""
        return self.grid.n_tokens if self.ranks is None else len(self.ranks)

    def coords(self) -> Int32[np.ndarray, "token 3"]:
        """Coordinates (t, row, column) of the stored tokens."""
        coords = self.grid.coords()
        return coords if self.ranks is None else coords[self.ranks]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in the commit log."""
        content = {**{name: getattr(self, name) for name in _RECORD_FIELDS}, "grid": self.grid.to_json()}
        return content if self.ranks is None else {**content, "ranks": self.ranks.tolist()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "VideoRecord":
        """Rebuild from `to_json`."""
        fields = {name: content[name] for name in _RECORD_FIELDS}
        ranks = content.get("ranks")
        return cls(
            **fields,
            grid=TokenGrid.from_json(content["grid"]),
            ranks=None if ranks is None else np.array(ranks, dtype=np.int64),
        )


_RECORD_FIELDS = (
    *("index", "video_id", "path", "split", "row_start", "row_stop"),
    *("frame_rate", "n_frames", "width", "height"),
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One video that could not be collected."""

    index: int
    """Position among the videos that were to be collected."""
    video_id: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rank:
    folder: Path
    row_start: int
    n_tokens: int
    moments: Mapping[str, RunningMoments]


class ActivationStore:
    """A finished activation store, for reading; make one with `open`."""

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], ranks: list[_Rank], videos: list[VideoRecord]
    ) -> None:
        self.folder = folder
        self._manifest = manifest
        self._ranks = ranks
        self.videos: tuple[VideoRecord, ...] = tuple(videos)
        """Collected videos in the order of their rows; `videos[i].index` is i."""

    @classmethod
    def open(cls, folder: Path) -> "ActivationStore":
        """Open the folder `RUN/activations`.

        Raises:
            UserError: there is no store, it is not finished, its version is unknown, or its log is damaged.
        """
        manifest = read_manifest(folder)
        ranks: list[_Rank] = []
        videos: list[VideoRecord] = []
        row_start = 0
        for entry in manifest["ranks"]:
            path = folder / entry["log"]
            commits = read_log(path)[1:]
            n_tokens = commits[-1]["row_stop"] if commits else 0
            if n_tokens != entry["n_tokens"]:
                raise damaged(path, f"it ends with row {n_tokens} where the manifest says {entry['n_tokens']}")
            for content in (video for commit in commits for video in commit["videos"]):
                rows = {name: content[name] + row_start for name in ("row_start", "row_stop")}
                videos.append(VideoRecord.from_json({**content, **rows, "index": len(videos)}))
            moments = commits[-1]["moments"] if commits else {}
            ranks.append(
                _Rank(
                    folder=folder / entry["zarr"],
                    row_start=row_start,
                    n_tokens=n_tokens,
                    moments={site: RunningMoments.from_json(value) for site, value in moments.items()},
                )
            )
            row_start += n_tokens
        return cls(folder, manifest, ranks, videos)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the stored sites."""
        return tuple(self._manifest["sites"])

    @property
    def n_tokens(self) -> int:
        """Number of rows."""
        return sum(rank.n_tokens for rank in self._ranks)

    @property
    def model(self) -> dict[str, Any]:
        """`VideoVlm.describe` of the model that was collected."""
        return self._manifest["model"]

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
        """Check that every token of every video's grid is stored, as what looks at neighbours in it needs.

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
        return tuple(Failure(**failure) for failure in self._manifest["failures"])

    def d_in(self, site: str) -> int:
        """Width of the activations at a site."""
        return self._site(site)["d_in"]

    def dtype(self, site: str) -> torch.dtype:
        """Type of the activations at a site, which is the model's own."""
        return getattr(torch, self._site(site)["dtype"])

    def stored_dtype(self, site: str) -> np.dtype[Any]:
        """Type of the bytes in a site's shards: uint16 for bfloat16, else that of `dtype`; little-endian."""
        return array_dtype(self._site(site)["dtype"])

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
        """The shard files of a site (or of `coords`) in the order of their rows, for a reader of its own.

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

    def _site(self, site: str) -> dict[str, Any]:
        if site not in self._manifest["sites"]:
            raise UserError(f"{self.folder} has no site {site!r}: choose one of {', '.join(self.sites)}.")
        return self._manifest["sites"][site]

    def _open_shards(self, array: str, row_bytes: int) -> list[Shard]:
        if array not in self._opened:
            shard_rows, chunk_rows = self._manifest["shard_rows"], self._manifest["chunk_rows"]
            self._opened[array] = [
                open_shard(
                    rank.folder / array / "c" / str(k) / "0",
                    row_start=rank.row_start + k * shard_rows,
                    row_stop=rank.row_start + min((k + 1) * shard_rows, rank.n_tokens),
                    n_chunks=shard_rows // chunk_rows,
                    chunk_rows=chunk_rows,
                    row_bytes=row_bytes,
                )
                for rank in self._ranks
                for k in range(-(-rank.n_tokens // shard_rows))
            ]
        return self._opened[array]

    def _read(self, array: str, start: int, stop: int, width: int, dtype: np.dtype[Any]) -> np.ndarray:
        assert 0 <= start <= stop <= self.n_tokens, f"rows {start} to {stop} of {self.n_tokens}"
        out = np.empty((stop - start, width), dtype=dtype)
        for shard in self._open_shards(array, width * dtype.itemsize):
            low, high = max(start, shard.row_start), min(stop, shard.row_stop)
            if low < high:
                read_rows(shard, low, high, out[low - start : high - start])
        return out


def array_dtype(dtype: str) -> np.dtype[Any]:
    """Type of the bytes in the shards of a site whose activations have this type; little-endian."""
    return np.dtype(STORED_DTYPES[getattr(torch, dtype)]).newbyteorder("<")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read `manifest.json`.

    Raises:
        UserError: there is none, so that the store is not finished, or it is damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "is not finished" if folder.is_dir() else "does not exist"
        raise UserError(f"The activation store {folder} {what}: run `video-sae collect` (again) to fill it.")
    try:
        manifest = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
        known = (manifest["format"], manifest["version"]) == (FORMAT, FORMAT_VERSION)
    except (ValueError, KeyError, TypeError):
        raise damaged(path, "it is not the JSON that collect writes") from None
    if "archived" in manifest:
        raise UserError(f"{folder} is an archive with compressed shards: `video-sae archive --restore` brings it back.")
    if not known:
        raise UserError(f"{path} is of another version than {FORMAT_VERSION}: collect again with this program.")
    return manifest
