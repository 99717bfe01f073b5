"""Writing one rank of an activation store so that a crash at any moment loses nothing that was committed.

Rows are collected in memory. A background thread writes each full shard of every site and of the coordinates, makes it
durable, and then commits it with one line of the log. A resumed writer knows which videos are committed and which one
the last shard cuts; when that video comes in again, its committed rows are dropped. The last, incomplete shard is
written by `finish`, which also cuts the arrays to the rows that they have.

Memory is bounded by two shards of every array: `add_video` waits while the shard before is still being written.
"""

import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from collect.artefact.inside import inside
from collect.artefact.lock import take_lock
from collect.config import CHUNK_ROWS
from collect.errors import UserError
from collect.store.commit_log import CommitLog
from collect.store.moments import RunningMoments
from collect.store.rank_log import COORDS, FORMAT, FORMAT_VERSION, Layout, RankLog, log_path
from collect.store.shards import PARTIAL_SUFFIX, write_shard
from collect.store.video_record import Failure, VideoRecord
from collect.store.zarr_arrays import create_arrays, cut_arrays

DEFAULT_SHARD_ROWS = 16384
CAPACITY = 2**40
"""Rows that an array is declared with until it is finished; unwritten rows cost nothing."""


@dataclass(frozen=True, kw_only=True)
class SiteSpec:
    """What is stored for one site."""

    d_in: int
    dtype: torch.dtype


class StoreWriter:
    """Writer of one rank; no other process can write that rank until it is closed.

    Args:
        folder: `RUN/activations`.
        rank: number of the writing process.
        sites: name -> width and type.
        capacity: rows that the rank may write at most; rounded up to whole shards, costs nothing.
        shard_rows: rows of a shard file.
        chunk_rows: rows under one checksum; divides `shard_rows`.
        model: what the manifest says about the model; kept in the log, so that the logs say everything that the
            manifest says.

    Raises:
        UserError: another process writes this rank, or it was begun with other sites or sizes.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        sites: Mapping[str, SiteSpec],
        capacity: int = CAPACITY,
        shard_rows: int = DEFAULT_SHARD_ROWS,
        chunk_rows: int = CHUNK_ROWS,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        assert shard_rows % chunk_rows == 0, "whole chunks fill a shard"
        folder.mkdir(parents=True, exist_ok=True)
        self._rank = rank
        self._zarr = inside(folder, f"rank-{rank}.zarr")
        self._log_path = log_path(folder, rank)
        self._sites = dict(sites)
        self._shard_rows, self._chunk_rows = shard_rows, chunk_rows
        self._capacity = -(-capacity // shard_rows) * shard_rows
        self._layout = Layout(
            sites={
                site: {"d_in": spec.d_in, "dtype": str(spec.dtype).removeprefix("torch.")}
                for site, spec in sites.items()
            },
            shard_rows=shard_rows,
            chunk_rows=chunk_rows,
            model=dict(model or {}),
        )
        self._lock = take_lock(folder / f"rank-{rank}.lock", folder)
        try:
            self._begin(rank)
        except BaseException:
            self._lock.release()
            raise

    @property
    def next_video(self) -> int:
        """One more than the largest index among the videos so far: where to continue if they come in that order."""
        return self._next_video

    @property
    def committed(self) -> frozenset[int]:
        """Indices of the videos that are committed in full, or as a failure."""
        return self._committed

    @property
    def partial(self) -> int | None:
        """Index of the video that the last committed shard cuts; it must be the next one to be added."""
        return self._partial

    @property
    def next_row(self) -> int:
        """First row of the next video to be added."""
        return self._next_row

    @property
    def n_committed(self) -> int:
        """Rows that are committed."""
        return self._n_committed

    @property
    def failures(self) -> list[Failure]:
        """Videos that failed, committed or not."""
        return self._failures + [event for event in self._pending if isinstance(event, Failure)]

    @property
    def is_finished(self) -> bool:
        """Whether everything is committed."""
        return self._is_finished

    def add_video(self, record: VideoRecord, residuals: Mapping[str, Tensor]) -> None:
        """Take in the tokens of one video.

        Args:
            record: of the video, with `row_start` = `next_row`; its `index` counts all videos to be collected.
            residuals: site -> [tokens of the record, d_in], in the type of the site.

        Raises:
            OSError: an earlier shard could not be written.
            UserError: the video whose first rows are committed has a different number of tokens now.
        """
        n = record.n_tokens
        assert record.row_start == self._next_row, "videos follow each other"
        assert record.row_stop == record.row_start + n, "a record's rows are its tokens"
        assert record.row_stop <= self._capacity, "more rows than the capacity"
        assert self._partial in (None, record.index), "a video that a shard cuts comes first"
        if record.row_stop < self._n_staged_in_total:
            raise _changed(record.video_id)
        self._partial = None
        video = np.full((n, 1), record.index, dtype=np.int32)
        parts = {COORDS: torch.from_numpy(np.concatenate([video, record.coords()], axis=1))}
        for site, spec in self._sites.items():
            assert residuals[site].shape == (n, spec.d_in), f"{site}: {tuple(residuals[site].shape)}"
            assert residuals[site].dtype == spec.dtype, f"{site}: {residuals[site].dtype}"
            parts[site] = residuals[site]
        self._next_row = record.row_stop
        self._next_video = max(self._next_video, record.index + 1)
        self._pending.append(record)
        done = max(0, self._n_staged_in_total - record.row_start)  # rows that were committed before a resume
        while done < n:
            at = self._n_staged_in_total % self._shard_rows
            take = min(n - done, self._shard_rows - at)
            for name, part in parts.items():
                self._staging[name][at : at + take].copy_(part[done : done + take])
            done += take
            self._n_staged_in_total += take
            if self._n_staged_in_total % self._shard_rows == 0:
                self._submit(final=False)

    def add_failure(self, failure: Failure) -> None:
        """Record a video that could not be collected; it is committed with the next shard.

        Raises:
            UserError: its first rows are committed, so it could be collected before.
        """
        if self._partial == failure.index:
            raise _changed(failure.video_id, failure.reason)
        self._pending.append(failure)
        self._next_video = max(self._next_video, failure.index + 1)

    def finish(self) -> None:
        """Commit what is left, after which the rank is complete and its arrays are as long as it has rows.

        Raises:
            OSError: a shard could not be written.
        """
        assert self._partial is None, "the video that the last shard cuts is still missing"
        if not self._is_finished:
            self._submit(final=True)
            self._wait()
            self._is_finished = True
        cut_arrays(self._log_path.parent, self._rank)

    def close(self) -> None:
        """Wait for the shard in flight and release the rank; what is not committed is lost and is collected again."""
        try:
            self._wait()
        finally:
            self._executor.shutdown()
            self._log.close()
            self._lock.release()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, rank: int) -> None:
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "rank": rank,
            "sites": self._layout.sites,
            "shard_rows": self._shard_rows,
            "chunk_rows": self._chunk_rows,
            "capacity": self._capacity,
            "model": self._layout.model,
        }
        log = RankLog.read_if_begun(self._log_path) if self._log_path.exists() else None
        if log is None or not log.commits:
            # Nothing is committed, so whatever is there may be incomplete or from other arguments.
            self._log_path.unlink(missing_ok=True)
            shutil.rmtree(self._zarr, ignore_errors=True)
            create_arrays(self._zarr, self._layout, self._capacity)
            self._log = CommitLog(self._log_path)
            self._log.append(header)
            log = None
        elif log.header != {**header, "version": log.header["version"]}:
            raise UserError(
                f"{self._log_path} was begun with other sites or sizes ({_difference(log.header, header)}): "
                "give the earlier ones, choose another --out, or delete the activations folder."
            )
        else:
            self._log = CommitLog(self._log_path)
            for orphan in self._zarr.rglob(f"*{PARTIAL_SUFFIX}"):
                orphan.unlink()
        self._restore(log)

    def _restore(self, log: RankLog | None) -> None:
        videos = log.videos if log is not None else []
        self._failures = log.failures if log is not None else []
        self.n_videos = len(videos)
        self._committed = frozenset(event.index for event in (*videos, *self._failures))
        self._next_video = max(self._committed, default=-1) + 1
        self._partial: int | None = log.partial if log is not None else None
        self._next_row = videos[-1].row_stop if videos else 0
        self._n_committed = log.n_rows if log is not None else 0
        self._is_finished = log is not None and log.is_final
        self._n_staged_in_total = self._n_committed
        self._pending: list[VideoRecord | Failure] = []
        self._moments = {site: RunningMoments(spec.d_in) for site, spec in self._sites.items()}
        if log is not None:
            self._moments = log.moments()
        self._staging = self._new_staging()
        self._spare: dict[str, Tensor] | None = None
        self._in_flight: Future[None] | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store-writer")

    def _new_staging(self) -> dict[str, Tensor]:
        staging = {COORDS: torch.empty((self._shard_rows, 4), dtype=torch.int32)}
        for site, spec in self._sites.items():
            staging[site] = torch.empty((self._shard_rows, spec.d_in), dtype=spec.dtype)
        return staging

    def _submit(self, *, final: bool) -> None:
        """Hand the staged shard to the writing thread, once it has finished the previous one."""
        self._wait()
        row_stop = self._n_staged_in_total
        # A failure comes before the video that the shard cuts; this is how they are distinguished.
        events = [e for e in self._pending if isinstance(e, Failure) or e.row_stop <= row_stop]
        self._pending = [e for e in self._pending if e not in events]
        cut = next((e.index for e in self._pending if isinstance(e, VideoRecord) and e.row_start < row_stop), None)
        self.n_videos += sum(isinstance(e, VideoRecord) for e in events)
        self._failures += [e for e in events if isinstance(e, Failure)]
        staged, self._staging = self._staging, self._spare or self._new_staging()
        self._spare = staged  # free again when the thread is done, for which the next `_submit` waits
        self._in_flight = self._executor.submit(self._write, staged, row_stop, events, cut, final)

    def _wait(self) -> None:
        if self._in_flight is not None:
            in_flight, self._in_flight = self._in_flight, None
            in_flight.result()

    def _write(
        self,
        staged: dict[str, Tensor],
        row_stop: int,
        events: list[VideoRecord | Failure],
        cut: int | None,
        final: bool,
    ) -> None:
        k = self._n_committed // self._shard_rows
        n = row_stop - self._n_committed
        chunks: dict[str, str] = {}
        if n:
            for name, part in staged.items():
                stored = part.view(torch.uint16) if part.dtype == torch.bfloat16 else part
                path = self._zarr / name / "c" / str(k) / "0"
                crcs = write_shard(path, stored.numpy()[:n], shard_rows=self._shard_rows, chunk_rows=self._chunk_rows)
                chunks[name] = "".join(f"{crc:08x}" for crc in crcs.tolist())
            for site, moments in self._moments.items():
                moments.add(staged[site][:n])
        self._log.append(
            {
                "shard": k,
                "row_stop": row_stop,
                "final": final,
                "partial": cut,
                "videos": [e.to_json() for e in events if isinstance(e, VideoRecord)],
                "failures": [e.to_json() for e in events if isinstance(e, Failure)],
                "moments": {site: moments.to_json() for site, moments in self._moments.items()},
                "chunks": chunks,
            }
        )
        self._n_committed = row_stop


def _changed(video_id: str, reason: str = "it has fewer tokens than before") -> UserError:
    return UserError(
        f"Part of the video {video_id!r} is stored, but now {reason}: restore the file and the memory that there was, "
        "or delete the activations folder and collect again."
    )


def require_free(folder: Path, ranks: Iterable[int]) -> None:
    """Check that no process writes any of the ranks now.

    Raises:
        UserError: one does.
    """
    for rank in ranks:
        take_lock(folder / f"rank-{rank}.lock", folder).release()


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {before.get(name)} (now {now.get(name)})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    )
