"""`manifest.json`: the store's table of contents, made from the ranks' logs once all of them are complete."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import parse_json, read_bytes
from collect.artefact.seal import object_condition, seal_object
from collect.assignment import Progress
from collect.errors import UserError
from collect.printable import printable
from collect.store.rank_log import FIRST_VERSION, FORMAT, FORMAT_VERSION, Layout, RankLog, log_path
from collect.store.shards import damaged
from collect.store.video_record import Failure

MANIFEST_NAME = "manifest.json"
MANIFEST_REMEDY = "restore it, or delete this file alone and run `video-sae collect` as before, which writes it again"
ARCHIVED = "archived"
"""Key of the manifest of an archive with compressed shards."""


@dataclass(frozen=True, kw_only=True)
class RankEntry:
    """What the manifest says about one rank."""

    zarr: str
    log: str
    n_tokens: int
    n_videos: int | None
    log_crc32c: str | None
    """Checksum of the log; None if it has none."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest whose fields are valid; `differences` tells whether they agree with the logs."""

    path: Path
    version: int
    layout: Layout
    n_tokens: int | None
    n_videos: int | None
    ranks: tuple[RankEntry, ...]
    failures: tuple[Failure, ...]

    def log(self, entry: RankEntry) -> Path:
        """Where the log of a rank lies.

        Raises:
            UserError: not within the store.
        """
        return inside(self.path.parent, entry.log, self.path)

    def zarr(self, entry: RankEntry) -> Path:
        """Where the arrays of a rank lie.

        Raises:
            UserError: not within the store.
        """
        return inside(self.path.parent, entry.zarr, self.path)

    def differences(self, logs: Sequence[RankLog]) -> Iterator[str]:
        """Where the manifest disagrees with the logs of its ranks."""
        for entry, log in zip(self.ranks, logs, strict=True):
            name, n_videos = printable(entry.log), len(log.videos)
            if not log.is_final:
                yield f"it counts on {name}, which is not complete"
            said_videos = n_videos if entry.n_videos is None else entry.n_videos
            if (entry.n_tokens, said_videos) != (log.n_rows, n_videos):
                yield f"it says {entry.n_tokens} tokens of {name}, which has {log.n_rows} in {n_videos} videos"
            elif self.version > FIRST_VERSION and entry.log_crc32c != _crc32c(log):
                yield f"{name} is another one than it says: lines of it are missing or changed"
            if log.layout != self.layout:
                yield f"its sites, sizes or model are not those of {name}"
        videos = [video.video_id for log in logs for video in log.videos]
        failures = sorted((f for log in logs for f in log.failures), key=lambda failure: failure.index)
        n_tokens = sum(log.n_rows for log in logs)
        said = (self.n_tokens, self.n_videos, len(self.failures))
        found = (n_tokens, len(videos), len(failures))
        # The first version of the format did not require the sums.
        if any(value is not None and value != right for value, right in zip(said, found, strict=True)):
            yield f"it says {said} tokens, videos and failures, and the logs {found}"
        elif list(self.failures) != failures:
            yield "its failures are not those of the logs"
        if len(set(videos)) < len(videos):
            yield f"{len(videos) - len(set(videos))} videos are stored twice"


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`.

    Raises:
        UserError: there is none, so the store is not finished; or it is damaged or of another version.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        what = "is not finished" if folder.is_dir() else "does not exist"
        shown = printable(folder, 4096)
        raise UserError(f"The activation store {shown} {what}: run `video-sae collect` (again) to fill it.")
    return parse_manifest(read_bytes(path, MANIFEST_REMEDY), path)


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Check what a manifest says.

    Args:
        data: its content.
        path: where it lies, or will lie.

    Raises:
        UserError: it is damaged or of another version.
    """
    content: object = parse_json(data, path, MANIFEST_REMEDY)
    if not isinstance(content, dict):
        raise damaged(path, "it is not the JSON that collect writes", MANIFEST_REMEDY)
    content = cast("dict[str, Any]", content)
    if ARCHIVED in content:
        raise UserError(
            f"{printable(path.parent, 4096)} is an archive with compressed shards: `video-sae archive --restore` "
            "brings it back."
        )
    version: Any = content.get("version")
    if content.get("format") != FORMAT or version not in range(FIRST_VERSION, FORMAT_VERSION + 1):
        if "format" in content and "version" in content:
            raise UserError(
                f"{printable(path, 4096)} is of another version than {FORMAT_VERSION}: collect again with this program."
            )
        raise damaged(path, "it is not the JSON that collect writes", MANIFEST_REMEDY)
    condition = object_condition(content)
    if condition == "changed" or (condition == "whole") != (version > FIRST_VERSION):
        raise damaged(path, "it fails its checksum, so it was changed after it was written", MANIFEST_REMEDY)
    fields = Fields(content, printable(path, 4096), MANIFEST_REMEDY)
    has_sums = version > FIRST_VERSION
    return Manifest(
        path=path,
        version=version,
        layout=Layout.from_fields(fields),
        n_tokens=fields.count("n_tokens") if has_sums or fields.has("n_tokens") else None,
        n_videos=fields.count("n_videos") if has_sums or fields.has("n_videos") else None,
        ranks=tuple(_entries(fields, has_sums=has_sums)),
        failures=tuple(Failure.from_fields(failure) for failure in fields.children("failures")),
    )


def _entries(fields: Fields, *, has_sums: bool) -> Iterator[RankEntry]:
    seen: set[str] = set()
    for rank in fields.children("ranks"):
        entry = RankEntry(
            zarr=rank.text("zarr"),
            log=rank.text("log"),
            n_tokens=rank.count("n_tokens"),
            n_videos=rank.count("n_videos") if has_sums or rank.has("n_videos") else None,
            log_crc32c=rank.text("log_crc32c") if rank.has("log_crc32c") else None,
        )
        for name in (entry.zarr, entry.log):
            if name in seen:
                raise fields.error("ranks", "ranks that share no file")
            seen.add(name)
        yield entry
    if not seen:
        raise fields.error("ranks", "one rank or more")


def read_progress(folder: Path, ranks: Iterable[int]) -> dict[int, Progress]:
    """What the log of each rank says; ranks that have none yet are left out.

    Raises:
        UserError: a log cannot be read or is damaged.
    """
    progress: dict[int, Progress] = {}
    for rank in ranks:
        path = log_path(folder, rank)
        log = RankLog.read_if_begun(path) if path.exists() else None
        if log is not None:
            progress[rank] = Progress(
                committed=frozenset(event.index for event in (*log.videos, *log.failures)),
                partial=log.partial,
                is_final=log.is_final,
            )
    return progress


def write_manifest(folder: Path, ranks: Iterable[int]) -> Mapping[str, Any]:
    """Write the manifest over complete ranks, in the given order; every process that does so writes the same bytes.

    Raises:
        UserError: no rank has a video; the message has the first failure's reason.
    """
    logs = [RankLog.read(log_path(folder, rank)) for rank in ranks]
    failures = sorted((f for log in logs for f in log.failures), key=lambda failure: failure.index)
    layout = logs[-1].layout
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "sites": layout.sites,
        "shard_rows": layout.shard_rows,
        "chunk_rows": layout.chunk_rows,
        "n_tokens": sum(log.n_rows for log in logs),
        "n_videos": sum(len(log.videos) for log in logs),
        "ranks": [
            {
                "zarr": log.path.with_suffix(".zarr").name,
                "log": log.path.name,
                "n_tokens": log.n_rows,
                "n_videos": len(log.videos),
                "log_crc32c": _crc32c(log),
            }
            for log in logs
        ],
        "model": layout.model,
        "failures": [failure.to_json() for failure in failures],
    }
    if not manifest["n_tokens"]:
        reason = failures[0].reason if failures else "none of their tokens is wanted"
        raise UserError(f"No video could be collected into {folder}: {reason}")
    write_atomic(folder / MANIFEST_NAME, json.dumps(seal_object(manifest), indent=2) + "\n")
    return manifest


def _crc32c(log: RankLog) -> str | None:
    return None if log.checksum is None else f"{log.checksum:08x}"
