"""What the commit log of one rank says, checked: nothing in it is used before all of it fits together.

A log is input, whoever wrote it: a field that is missing or of another kind, a count beyond all bounds, commits that do
    not follow one another and videos whose rows overlap all give one error that names the file and the line.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt32

from collect.artefact.inside import inside, is_relative
from collect.artefact.json_fields import Fields
from collect.errors import UserError
from collect.printable import printable
from collect.store.commit_log import LogLines, read_log
from collect.store.moments import RunningMoments
from collect.store.shards import DAMAGE_REMEDY, damaged
from collect.store.video_record import Failure, VideoRecord, flat

FORMAT = "video-sae activations"
FORMAT_VERSION = 2
FIRST_VERSION = 1
"""Its logs and manifests have no checksums; they are read and completed, but not begun."""
COORDS = "coords"
STORED_DTYPES = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
"""Type of a site's activations -> that of the bytes in its shards."""
_MOST_SHARD_ROWS = 2**31
_MOST_WIDTH = 2**24
_HEXADECIMAL = re.compile("[0-9a-f]*")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all ranks of a store have in common."""

    sites: Mapping[str, Mapping[str, Any]]
    """Site -> `d_in` and `dtype`."""
    shard_rows: int
    chunk_rows: int
    model: Mapping[str, Any]

    @classmethod
    def from_fields(cls, fields: Fields) -> "Layout":
        """Read it from a log's header or a manifest.

        Raises:
            UserError: a field is missing or of another kind.
        """
        named = fields.child("sites")
        sites: dict[str, dict[str, Any]] = {}
        for name in named.names():
            if not is_relative(name):  # it names a folder
                raise fields.error("sites", "an object with names of hook sites")
            site = named.child(name)
            dtype = site.text("dtype")
            if dtype not in STORED_DTYPES:
                raise site.error("dtype", f"one of {', '.join(STORED_DTYPES)}")
            sites[name] = {"d_in": site.count("d_in", least=1, most=_MOST_WIDTH), "dtype": dtype}
        if not sites or COORDS in sites:
            raise fields.error("sites", "an object with one site or more")
        shard_rows = fields.count("shard_rows", least=1, most=_MOST_SHARD_ROWS)
        chunk_rows = fields.count("chunk_rows", least=1, most=shard_rows)
        if shard_rows % chunk_rows:
            raise fields.error("chunk_rows", f"a divisor of `shard_rows` = {shard_rows}")
        model = flat(fields, "model")
        if model and not isinstance(model.get("fingerprint"), str):
            raise fields.error("model", "an object with a `fingerprint`")
        return cls(sites=sites, shard_rows=shard_rows, chunk_rows=chunk_rows, model=model)

    def arrays(self) -> dict[str, tuple[int, np.dtype[Any]]]:
        """Name -> width and stored type of a rank's arrays."""
        sites = {name: (int(spec["d_in"]), np.dtype(STORED_DTYPES[spec["dtype"]])) for name, spec in self.sites.items()}
        return {COORDS: (4, np.dtype("<i4")), **sites}


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit: what is valid from then on."""

    shard: int
    row_stop: int
    is_final: bool
    partial: int | None
    """Index of the video whose rows go beyond `row_stop`."""
    videos: tuple[VideoRecord, ...]
    failures: tuple[Failure, ...]
    moments: Mapping[str, Fields]
    """Site -> sums over all committed rows, to be read by `RunningMoments.from_fields`."""
    chunk_crcs: Mapping[str, UInt32[np.ndarray, " chunk"]] | None
    """Array -> crc32c of each chunk of the shard, so that no other complete shard can take its place; None if the log
    was written by a program that did not record them."""


@dataclass(frozen=True, kw_only=True)
class RankLog:
    """A log whose lines fit together."""

    path: Path
    header: Mapping[str, Any]
    """The first line."""
    layout: Layout
    capacity: int
    commits: tuple[Commit, ...]
    checksum: int | None
    """crc32c of the whole log; None where it was written without checksums."""
    ends: tuple[int, ...]
    """Byte after each line's newline."""

    @classmethod
    def read(cls, path: Path) -> "RankLog":
        """Read and check a log.

        Raises:
            UserError: it cannot be read, has no header, or a line is wrong or does not follow the one before.
        """
        found = cls.read_if_begun(path)
        if found is None:
            raise damaged(path, "it is empty")
        return found

    @classmethod
    def read_if_begun(cls, path: Path) -> "RankLog | None":
        """As `read`; None for a log whose header was torn by a crash, so nothing was committed.

        Raises:
            UserError: as for `read`.
        """
        read = read_log(path)
        if not read.lines:
            return None
        header = Fields(read.lines[0], _place(path, 1), DAMAGE_REMEDY)
        versions = (FIRST_VERSION,) if read.checksum is None else range(FIRST_VERSION + 1, FORMAT_VERSION + 1)
        if header.text("format") != FORMAT or header.integer("version") not in versions:
            raise UserError(
                f"{printable(path, 4096)} is of another format or version than {FORMAT_VERSION}: collect again with "
                "this program, or read it with the one that wrote it."
            )
        layout = Layout.from_fields(header)
        header.count("rank")
        log = cls(
            path=path,
            header=read.lines[0],
            layout=layout,
            capacity=header.count("capacity", least=1),
            commits=tuple(_commits(read, layout)),
            checksum=read.checksum,
            ends=read.ends,
        )
        problem = next(log.problems(), None)
        if problem is not None:
            raise damaged(path, problem)
        return log

    @property
    def n_rows(self) -> int:
        """Rows that are valid."""
        return self.commits[-1].row_stop if self.commits else 0

    @property
    def is_final(self) -> bool:
        """Whether the rank is complete."""
        return bool(self.commits) and self.commits[-1].is_final

    @property
    def partial(self) -> int | None:
        """Index of the video that the last committed shard cuts."""
        return self.commits[-1].partial if self.commits else None

    @property
    def videos(self) -> list[VideoRecord]:
        """Records of the committed videos, with the rows of the rank."""
        return [video for commit in self.commits for video in commit.videos]

    @property
    def failures(self) -> list[Failure]:
        """Videos that were given up."""
        return [failure for commit in self.commits for failure in commit.failures]

    @property
    def n_shards(self) -> int:
        """Number of committed shards of each array."""
        return -(-self.n_rows // self.layout.shard_rows)

    def moments(self, commit: Commit | None = None) -> dict[str, RunningMoments]:
        """Sums over the rows up to a commit, by default the last; none where nothing is committed.

        Raises:
            UserError: they are not what the writer writes.
        """
        commit = commit or (self.commits[-1] if self.commits else None)
        if commit is None:
            return {}
        return {
            site: RunningMoments.from_fields(commit.moments[site], int(spec["d_in"]))
            for site, spec in self.layout.sites.items()
        }

    def chunk_crcs(self, array: str, shard: int) -> UInt32[np.ndarray, " chunk"] | None:
        """crc32c of each chunk of a committed shard; None if the log does not say."""
        crcs = self.commits[shard].chunk_crcs
        return None if crcs is None else crcs[array]

    def problems(self) -> Iterator[str]:
        """Where the commits do not follow one another."""
        size = self.layout.shard_rows
        row, next_row, is_final = 0, 0, False
        seen: set[int] = set()
        for number, commit in enumerate(self.commits, start=2):
            full = (commit.shard + 1) * size
            fits = commit.shard * size <= commit.row_stop < full if commit.is_final else commit.row_stop == full
            if is_final or commit.shard * size != row or not fits or commit.row_stop > self.capacity:
                yield f"line {number} does not follow the one before"
                return
            row, is_final = commit.row_stop, commit.is_final
            for video in commit.videos:
                if video.row_start != next_row or video.row_stop > row:
                    name = printable(video.video_id)
                    yield f"the rows of the video {name!r} in line {number} do not follow those before"
                    return
                next_row = video.row_stop
            for event in (*commit.videos, *commit.failures):
                if event.index in seen:
                    yield f"line {number} has the video {printable(event.video_id)!r} again"
                seen.add(event.index)
            if (commit.partial is None) != (next_row == row) or commit.partial in seen:
                yield f"line {number} ends with row {row} and its videos with {next_row}, which `partial` contradicts"
            elif is_final and next_row != row:
                yield f"its videos end with row {next_row} and its last commit with row {row}"


def log_path(folder: Path, rank: int) -> Path:
    """Where the log of a rank lies.

    Raises:
        UserError: a link in its place leads out of the folder.
    """
    return inside(folder, f"rank-{rank}.jsonl")


def _place(path: Path, number: int) -> str:
    return f"line {number} of {printable(path, 4096)}"


def _commits(read: LogLines, layout: Layout) -> Iterator[Commit]:
    for number, line in enumerate(read.lines[1:], start=2):
        fields = Fields(line, _place(read.path, number), DAMAGE_REMEDY)
        for name in ("videos", "failures"):
            if not isinstance(line.get(name), list):
                raise fields.error(name, "a list")
        if "partial" not in line or not isinstance(line.get("final"), bool):
            raise fields.error("partial" if "partial" not in line else "final", "there")
        row_stop = fields.count("row_stop")
        sums = fields.child("moments")
        moments = {site: sums.child(site) for site in layout.sites}
        for site, of_site in moments.items():
            if of_site.count("n") != row_stop:
                raise sums.error(site, f"sums over {row_stop} rows")
        shard = fields.count("shard")
        n_chunks = -(-max(0, row_stop - shard * layout.shard_rows) // layout.chunk_rows)
        yield Commit(
            shard=shard,
            row_stop=row_stop,
            is_final=line["final"],
            partial=fields.count("partial") if fields.has("partial") else None,
            videos=tuple(VideoRecord.from_fields(video) for video in fields.children("videos")),
            failures=tuple(Failure.from_fields(failure) for failure in fields.children("failures")),
            moments=moments,
            chunk_crcs=_chunk_crcs(fields, layout, n_chunks) if fields.has("chunks") else None,
        )


def _chunk_crcs(fields: Fields, layout: Layout, n_chunks: int) -> dict[str, UInt32[np.ndarray, " chunk"]]:
    named = fields.child("chunks")
    found: dict[str, UInt32[np.ndarray, " chunk"]] = {}
    for array in layout.arrays() if n_chunks else ():
        text = named.text(array)
        if len(text) != 8 * n_chunks or not _HEXADECIMAL.fullmatch(text):
            raise named.error(array, f"{n_chunks} checksums of eight hexadecimal digits")
        found[array] = np.frombuffer(bytes.fromhex(text), dtype=">u4").astype(np.uint32)
    return found
