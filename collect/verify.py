"""The stage `verify`: every checksum and every count of an activation store, finished or not.

What is checked: config and manifest can be read; each rank's log is a chain of commits whose videos follow each
other without gaps; its arrays are declared as the log says; every shard that a commit speaks of is there, has its size,
and passes all its checksums; coordinates are those of the videos' grids; the manifest's numbers are the sums of the
logs', and no video is stored twice. Values of activations are covered by their checksums only.

With `repair`, a rank with a bad shard is cut back to the commits before it, so that the next `video-sae collect`
collects the rest of it again.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from collect.artefact import read_config, write_atomic
from collect.commit_log import read_log
from collect.config import VerifyConfig
from collect.errors import UserError
from collect.moments import RunningMoments
from collect.shards import CRC_BYTES, open_shard, read_rows
from collect.store import COORDS, MANIFEST_NAME, VideoRecord, array_dtype, read_manifest

logger = logging.getLogger(__name__)

N_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with one file."""

    path: Path
    reason: str
    log: Path | None = None
    """Log of the rank whose shard is bad."""
    shard: int | None = None


@dataclass(frozen=True, kw_only=True)
class _ShardFile:
    """One shard file that the log speaks of, and what should be in it."""

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


def verify(config: VerifyConfig) -> Path:
    """Check a store.

    Returns:
        The folder of the store, if nothing is wrong with it.

    Raises:
        UserError: there is no store, or something is wrong; the message names every bad file (of very many, the first).
    """
    folder = config.run / "activations" if (config.run / "activations").is_dir() else config.run
    if not folder.is_dir():
        raise UserError(f"There is no activation store {folder}: give the run folder that `video-sae collect` filled.")
    problems = find_problems(folder, config.workers)
    if not problems:
        state = "finished" if (folder / MANIFEST_NAME).is_file() else "not finished: run `video-sae collect` again"
        logger.info("nothing is wrong with %s, which is %s", folder, state)
        return folder
    listed = [f"  {problem.path}: {problem.reason}" for problem in problems[:N_SHOWN]]
    more = [f"  and {len(problems) - N_SHOWN} more"] if len(problems) > N_SHOWN else []
    raise UserError(
        f"{len(problems)} things are wrong with {folder}:",
        details=[*listed, *more, _remedy(folder, problems, config)],
    )


def find_problems(folder: Path, workers: int = 1) -> list[Problem]:
    """Everything that is wrong with a store, in the order of its files."""
    problems: list[Problem] = []
    manifest: dict[str, Any] | None = None
    try:
        read_config(folder, "collect")
        if (folder / MANIFEST_NAME).exists():
            manifest = read_manifest(folder)
    except UserError as error:
        problems.append(Problem(path=folder, reason=str(error)))
    names = (
        sorted((path.name for path in folder.glob("rank-*.jsonl")), key=lambda name: (len(name), name))
        if manifest is None
        else [entry["log"] for entry in manifest["ranks"]]
    )
    logs: dict[str, list[dict[str, Any]]] = {}
    shards: list[_ShardFile] = []
    for name in names:
        try:
            logs[name] = read_log(folder / name)
            problems += [Problem(path=folder / name, reason=reason) for reason in _chain(logs[name])]
            problems += _declarations(folder / name, logs[name])
            shards += _shard_files(folder / name, logs[name])
        except UserError as error:
            problems.append(Problem(path=folder / name, reason=str(error)))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            problems.append(Problem(path=folder / name, reason=f"it is not a log that collect writes ({error!r})"))
    if manifest is not None and not problems:
        problems += [Problem(path=folder / MANIFEST_NAME, reason=reason) for reason in _sums(manifest, logs)]
    records = {name: _records(lines) for name, lines in logs.items()} if not problems else {}
    return problems + _bad_shards(shards, records, workers)


def _chain(lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the commits of one log."""
    if not lines:
        return
    header, *commits = lines
    row, next_row = 0, 0
    for number, commit in enumerate(commits, start=2):
        if commit["row_stop"] < row or commit["shard"] != row // header["shard_rows"]:
            yield f"line {number} does not follow the one before"
        row = commit["row_stop"]
        for video in map(VideoRecord.from_json, commit["videos"]):
            if video.row_start != next_row or video.row_stop != next_row + video.n_tokens or video.row_stop > row:
                yield f"the rows of the video {video.video_id!r} in line {number} do not follow those before"
            next_row = video.row_stop
        for site, moments in commit["moments"].items():
            if RunningMoments.from_json(moments).n != row:
                yield f"the moments of {site} in line {number} are not of {row} rows"
    if commits and commits[-1]["final"] and next_row != row:
        yield f"its videos end with row {next_row} and its last commit with row {row}"


def _declarations(log: Path, lines: Sequence[dict[str, Any]]) -> Iterator[Problem]:
    """Arrays whose metadata say something else than the log."""
    if not lines:
        return
    header, *commits = lines
    is_final = bool(commits) and commits[-1]["final"]
    n_rows = commits[-1]["row_stop"] if is_final else header["capacity"]
    for array, width, dtype in _arrays(header):
        path = log.with_suffix(".zarr") / array / "zarr.json"
        try:
            metadata = json.loads(path.read_text(encoding="utf-8"))
            (codec,) = metadata["codecs"]
            found = (
                metadata["shape"],
                metadata["data_type"],
                metadata["chunk_grid"]["configuration"]["chunk_shape"],
                codec["configuration"]["chunk_shape"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield Problem(path=path, reason=f"it cannot be read ({error})")
            continue
        wanted = ([n_rows, width], dtype.name, [header["shard_rows"], width], [header["chunk_rows"], width])
        # The array is cut to its rows behind the last commit, which an interruption can prevent until the next run.
        uncut = ([header["capacity"], width], *wanted[1:])
        if found != wanted and found != uncut:
            yield Problem(path=path, reason=f"it declares {found} where the log needs {wanted}")


def _arrays(header: dict[str, Any]) -> Iterator[tuple[str, int, np.dtype[Any]]]:
    """Name, width and stored type of a rank's arrays."""
    yield COORDS, 4, np.dtype("<i4")
    for site, spec in header["sites"].items():
        yield site, spec["d_in"], array_dtype(spec["dtype"])


def _shard_files(log: Path, lines: Sequence[dict[str, Any]]) -> list[_ShardFile]:
    if len(lines) < 2:
        return []
    header, n_rows = lines[0], lines[-1]["row_stop"]
    size = header["shard_rows"]
    return [
        _ShardFile(
            path=log.with_suffix(".zarr") / array / "c" / str(k) / "0",
            log=log,
            array=array,
            shard=k,
            row_start=k * size,
            row_stop=min((k + 1) * size, n_rows),
            width=width,
            dtype=dtype,
            shard_rows=size,
            chunk_rows=header["chunk_rows"],
        )
        for array, width, dtype in _arrays(header)
        for k in range(-(-n_rows // size))
    ]


def _sums(manifest: dict[str, Any], logs: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """What the manifest says otherwise than the logs."""
    ids: list[str] = []
    n_tokens, n_failures = 0, 0
    for entry in manifest["ranks"]:
        header, *commits = logs[entry["log"]]
        own = [video["video_id"] for commit in commits for video in commit["videos"]]
        rows = commits[-1]["row_stop"] if commits else 0
        if not commits or not commits[-1]["final"]:
            yield f"it counts on {entry['log']}, which is not complete"
        if (entry["n_tokens"], entry.get("n_videos", len(own))) != (rows, len(own)):
            yield f"it says {entry['n_tokens']} tokens of {entry['log']}, which has {rows} in {len(own)} videos"
        if any(header[key] != manifest[key] for key in ("sites", "shard_rows", "chunk_rows")):
            yield f"its sites or sizes are not those of {entry['log']}"
        ids += own
        n_tokens += rows
        n_failures += sum(len(commit["failures"]) for commit in commits)
    found = (manifest["n_tokens"], manifest["n_videos"], len(manifest["failures"]))
    if found != (n_tokens, len(ids), n_failures):
        yield f"it says {found} tokens, videos and failures, and the logs {(n_tokens, len(ids), n_failures)}"
    if len(set(ids)) < len(ids):
        yield f"{len(ids) - len(set(ids))} videos are stored twice"


def _records(lines: Sequence[dict[str, Any]]) -> list[VideoRecord]:
    return [VideoRecord.from_json(video) for commit in lines[1:] for video in commit["videos"]]


def _bad_shards(shards: Sequence[_ShardFile], records: dict[str, list[VideoRecord]], workers: int) -> list[Problem]:
    n_bytes = sum((s.row_stop - s.row_start) * s.width * s.dtype.itemsize for s in shards)
    problems: list[Problem] = []
    with (
        ThreadPoolExecutor(max_workers=workers, thread_name_prefix="verify") as executor,
        tqdm(total=n_bytes, unit="B", unit_scale=True, desc="verify", delay=2) as progress,
    ):
        for shard, reason in zip(
            shards, executor.map(lambda s: _check(s, records.get(s.log.name, [])), shards), strict=True
        ):
            progress.update((shard.row_stop - shard.row_start) * shard.width * shard.dtype.itemsize)
            if reason is not None:
                problems.append(Problem(path=shard.path, reason=reason, log=shard.log, shard=shard.shard))
    return problems


def _check(shard: _ShardFile, records: Sequence[VideoRecord]) -> str | None:
    """What is wrong with one shard file."""
    n_rows = shard.row_stop - shard.row_start
    n_chunks = shard.shard_rows // shard.chunk_rows
    row_bytes = shard.width * shard.dtype.itemsize
    rows = np.empty((n_rows, shard.width), dtype=shard.dtype)
    try:
        opened = open_shard(
            shard.path,
            row_start=shard.row_start,
            row_stop=shard.row_stop,
            n_chunks=n_chunks,
            chunk_rows=shard.chunk_rows,
            row_bytes=row_bytes,
        )
        read_rows(opened, shard.row_start, shard.row_stop, rows)
    except UserError as error:
        return str(error).split(" is damaged (", 1)[-1].split("):", 1)[0]
    used = -(-n_rows // shard.chunk_rows)
    size = used * (shard.chunk_rows * row_bytes + CRC_BYTES) + n_chunks * 16 + CRC_BYTES
    if shard.path.stat().st_size != size:
        return f"it has {shard.path.stat().st_size} bytes instead of {size}"
    if shard.array == COORDS:
        for record in records:
            low, high = max(record.row_start, shard.row_start), min(record.row_stop, shard.row_stop)
            if low < high:
                own = slice(low - record.row_start, high - record.row_start)
                found = rows[low - shard.row_start : high - shard.row_start]
                if (found[:, 0] != record.index).any() or not np.array_equal(found[:, 1:], record.coords()[own]):
                    return f"its coordinates are not those of the video {record.video_id!r}"
    return None


def _remedy(folder: Path, problems: Sequence[Problem], config: VerifyConfig) -> str:
    """Say what to do; with `repair`, do it."""
    cuts: dict[Path, int] = {}
    for problem in problems:
        if problem.log is None or problem.shard is None:
            return "Restore what is named from a copy, or delete the activations folder and collect again."
        cuts[problem.log] = min(problem.shard, cuts.get(problem.log, problem.shard))
    if not config.repair:
        return "Restore the files from a copy; or run this with --repair, and then `video-sae collect` as before."
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for log, shard in cuts.items():
        header, *commits = read_log(log)
        kept = [header, *(commit for commit in commits if commit["shard"] < shard)]
        write_atomic(log, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in kept))
    return "Every rank was cut back to before its first bad shard: run `video-sae collect` as before to fill it again."
