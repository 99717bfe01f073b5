"""The stage `verify`: every checksum and every count of an activation store, finished or not.

It checks that config and manifest can be read and pass their checksums; that each rank's log passes its own and is a
chain of commits whose videos follow one another without gaps; that its arrays are declared as the log says; that every
committed shard is there, has the right size, passes all its checksums and is the one that was committed; that
coordinates are those of the videos' grids; that the manifest agrees with the logs; and that no video is stored twice.
Values of activations are covered only by their checksums.

With `repair`, a rank with a bad shard is cut back to the commits before it, so the next `video-sae collect` collects
the rest again.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32
from tqdm import tqdm

from collect.artefact.config_json import read_config
from collect.artefact.folder import write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_file import read_bytes
from collect.artefact.lock import writing
from collect.config import VerifyConfig
from collect.errors import UserError
from collect.printable import printable
from collect.process.machine import default_workers
from collect.store.manifest import MANIFEST_NAME, Manifest, read_manifest
from collect.store.rank_log import COORDS, RankLog
from collect.store.shards import CRC_BYTES, DAMAGE_REMEDY, Shard, damaged, open_shard, read_rows
from collect.store.video_record import VideoRecord
from collect.store.writer import require_free
from collect.store.zarr_arrays import wrong_declarations

logger = logging.getLogger(__name__)

N_SHOWN = 20
_WORKER_BYTES = 512 * 1024**2
"""About twice what a large shard takes."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with one file."""

    path: Path
    reason: str
    log: Path | None = None
    """Log of the rank whose shard is bad."""
    shard: int | None = None
    is_of_manifest: bool = False
    """Whether the logs, which are right, hold all that the manifest should."""


@dataclass(frozen=True, kw_only=True)
class _ShardFile:
    """One shard file that the log names, and what should be in it."""

    path: Path
    log: Path
    array: str
    shard: int
    row_start: int
    row_stop: int
    width: int
    dtype: np.dtype[Any]
    shard_rows: int
    chunk_rows: int
    chunk_crcs: UInt32[np.ndarray, " chunk"] | None
    """As the log has them, if it does."""


def verify(config: VerifyConfig) -> Path:
    """Check a store.

    Returns:
        The folder of the store, if nothing is wrong with it.

    Raises:
        UserError: there is no store, or something is wrong; the message names every bad file, or the first of very
            many.
    """
    folder = config.run / "activations" if (config.run / "activations").is_dir() else config.run
    if not folder.is_dir():
        raise UserError(f"There is no activation store {folder}: give the run folder that `video-sae collect` filled.")
    if not config.repair:
        return _verify(folder, config)
    with writing(folder):  # a job whose first process has ended may still write its other ranks
        ranks = [path.stem.removeprefix("rank-") for path in folder.glob("rank-*.jsonl")]
        require_free(folder, [int(rank) for rank in ranks if rank.isdecimal()])
        return _verify(folder, config)


def _verify(folder: Path, config: VerifyConfig) -> Path:
    problems, logs = _examine(folder, config.workers or default_workers(_WORKER_BYTES))
    if not problems:
        without = [log.path.name for log in logs if log.checksum is None]
        if without:
            logger.warning(
                "%s of %s is of the format's first version, without checksums: shards are checked, but not whether a "
                "video's id, times or boxes were changed",
                ", ".join(without),
                folder,
            )
        unfinished = f"not finished, as it has no {MANIFEST_NAME}: run `video-sae collect` again"
        state = "finished" if (folder / MANIFEST_NAME).is_file() else unfinished
        logger.info("nothing is wrong with %s, which is %s", folder, state)
        return folder
    listed = [f"  {printable(problem.path, 4096)}: {problem.reason}" for problem in problems[:N_SHOWN]]
    more = [f"  and {len(problems) - N_SHOWN} more"] if len(problems) > N_SHOWN else []
    raise UserError(
        f"{len(problems)} things are wrong with {folder}:",
        details=[*listed, *more, _remedy(folder, problems, config)],
    )


def find_problems(folder: Path, workers: int = 1) -> list[Problem]:
    """Everything that is wrong with a store, in the order of its files."""
    return _examine(folder, workers)[0]


def _examine(folder: Path, workers: int) -> tuple[list[Problem], list[RankLog]]:
    """Everything that is wrong with a store, and the logs that could be read."""
    problems: list[Problem] = []
    manifest: Manifest | None = None
    try:
        read_config(folder, "collect")
    except UserError as error:
        problems.append(Problem(path=folder, reason=str(error)))
    try:
        if os.path.lexists(folder / MANIFEST_NAME):
            manifest = read_manifest(folder)
    except UserError as error:
        path = folder / MANIFEST_NAME
        problems.append(Problem(path=path, reason=str(error), is_of_manifest=path.is_file()))
    logs: list[RankLog] = []
    for path in _log_paths(folder, manifest, problems):
        try:
            log = RankLog.read_if_begun(path)
            if log is None:
                if manifest is not None:
                    problems.append(Problem(path=path, reason="it is empty"))
                continue
            for commit in log.commits:
                log.moments(commit)
            if log.is_final and path.stat().st_size != log.ends[-1]:  # a line that a crash tore comes before the last
                raise damaged(path, "something stands after its last commit")
        except UserError as error:
            problems.append(Problem(path=path, reason=str(error)))
            continue
        logs.append(log)
        problems += [Problem(path=path, reason=reason) for path, reason in wrong_declarations(log)]
    if manifest is not None and not problems:
        problems += [
            Problem(path=manifest.path, reason=reason, is_of_manifest=True) for reason in manifest.differences(logs)
        ]
    shards = [shard for log in logs for shard in _shard_files(log)]
    records = {log.path: log.videos for log in logs} if not problems else {}
    return problems + _bad_shards(shards, records, workers), logs


def _log_paths(folder: Path, manifest: Manifest | None, problems: list[Problem]) -> list[Path]:
    """Where the logs lie, only within the store; a path that leads out of it becomes a problem."""
    paths: list[Path] = []
    names = sorted((path.name for path in folder.glob("rank-*.jsonl")), key=lambda name: (len(name), name))
    for name in names if manifest is None else [entry.log for entry in manifest.ranks]:
        try:
            paths.append(inside(folder, name, None if manifest is None else manifest.path))
        except UserError as error:
            problems.append(Problem(path=folder / MANIFEST_NAME if manifest else folder, reason=str(error)))
    return paths


def _shard_files(log: RankLog) -> list[_ShardFile]:
    size = log.layout.shard_rows
    return [
        _ShardFile(
            path=log.path.with_suffix(".zarr") / array / "c" / str(k) / "0",
            log=log.path,
            array=array,
            shard=k,
            row_start=k * size,
            row_stop=min((k + 1) * size, log.n_rows),
            width=width,
            dtype=dtype,
            shard_rows=size,
            chunk_rows=log.layout.chunk_rows,
            chunk_crcs=log.chunk_crcs(array, k),
        )
        for array, (width, dtype) in log.layout.arrays().items()
        for k in range(log.n_shards)
    ]


def _bad_shards(shards: Sequence[_ShardFile], records: dict[Path, list[VideoRecord]], workers: int) -> list[Problem]:
    n_bytes = sum((s.row_stop - s.row_start) * s.width * s.dtype.itemsize for s in shards)
    problems: list[Problem] = []
    with (
        ThreadPoolExecutor(max_workers=workers, thread_name_prefix="verify") as executor,
        tqdm(total=n_bytes, unit="B", unit_scale=True, desc="verify", delay=2) as progress,
    ):
        for shard, reason in zip(
            shards, executor.map(lambda s: _check(s, records.get(s.log, [])), shards), strict=True
        ):
            progress.update((shard.row_stop - shard.row_start) * shard.width * shard.dtype.itemsize)
            if reason is not None:
                problems.append(Problem(path=shard.path, reason=reason, log=shard.log, shard=shard.shard))
    return problems


def check_parts(log: RankLog) -> None:
    """Check the declarations of a complete rank, and its shards' sizes and indices, without reading their rows.

    Raises:
        UserError: one is not as the log needs it.
    """
    for path, reason in wrong_declarations(log):
        raise damaged(path, reason)
    for shard in _shard_files(log):
        _open(shard)
        if (reason := _wrong_size(shard)) is not None:
            raise damaged(shard.path, reason)


def _open(shard: _ShardFile) -> Shard:
    return open_shard(
        inside(shard.log.parent, str(shard.path.relative_to(shard.log.parent))),
        row_start=shard.row_start,
        row_stop=shard.row_stop,
        n_chunks=shard.shard_rows // shard.chunk_rows,
        chunk_rows=shard.chunk_rows,
        row_bytes=shard.width * shard.dtype.itemsize,
        chunk_crcs=shard.chunk_crcs,
    )


def _wrong_size(shard: _ShardFile) -> str | None:
    n_used = -(-(shard.row_stop - shard.row_start) // shard.chunk_rows)
    chunk_bytes = shard.chunk_rows * shard.width * shard.dtype.itemsize + CRC_BYTES
    size = n_used * chunk_bytes + shard.shard_rows // shard.chunk_rows * 16 + CRC_BYTES
    found = shard.path.stat().st_size
    return None if found == size else f"it has {found} bytes instead of {size}"


def _check(shard: _ShardFile, records: Sequence[VideoRecord]) -> str | None:
    """What is wrong with one shard file."""
    try:
        opened = _open(shard)
        rows = np.empty((shard.row_stop - shard.row_start, shard.width), dtype=shard.dtype)
        read_rows(opened, shard.row_start, shard.row_stop, rows)
    except UserError as error:
        return str(error).split(" is damaged (", 1)[-1].split("):", 1)[0]
    if (reason := _wrong_size(shard)) is not None:
        return reason
    if shard.array == COORDS:
        for record in records:
            low, high = max(record.row_start, shard.row_start), min(record.row_stop, shard.row_stop)
            if low < high:
                own = slice(low - record.row_start, high - record.row_start)
                found = rows[low - shard.row_start : high - shard.row_start]
                if (found[:, 0] != record.index).any() or not np.array_equal(found[:, 1:], record.coords()[own]):
                    return f"its coordinates are not those of the video {printable(record.video_id)!r}"
    return None


def _remedy(folder: Path, problems: Sequence[Problem], config: VerifyConfig) -> str:
    """Say what to do; with `repair`, do it."""
    cuts: dict[Path, int] = {}
    for problem in problems:
        if problem.is_of_manifest:
            continue  # written again from the logs
        if problem.log is None or problem.shard is None:
            return "Restore what is named from a copy, or delete the activations folder and collect again."
        cuts[problem.log] = min(problem.shard, cuts.get(problem.log, problem.shard))
    if not cuts and not config.repair:
        return f"Restore {MANIFEST_NAME} from a copy; or delete it alone, and run `video-sae collect` as before."
    if not config.repair:
        return "Restore the files from a copy; or run this with --repair, and then `video-sae collect` as before."
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for path, shard in cuts.items():
        log = RankLog.read(path)
        n_kept = 1 + sum(commit.shard < shard for commit in log.commits)
        write_atomic(path, read_bytes(path, DAMAGE_REMEDY)[: log.ends[n_kept - 1]])
    if not cuts:
        return f"{MANIFEST_NAME} was deleted: run `video-sae collect` as before to write it again."
    return "Every rank was cut back to before its first bad shard: run `video-sae collect` as before to fill it again."
