"""The page as files that open without a server: the same page, shards and media that the server gives.

    DIR/index.html     to be opened
    DIR/page/          its styles and scripts
    DIR/shards/        what it loads; `notes.js` holds the notes of the run as they were
    DIR/media/         clips and stills, with the sentinels of `browse.media`
    DIR/export.json    written first: says that the folder is an export, which may be written again; and last, of what

An interrupted export is continued by writing it again: clips and stills that are there are kept. One that is finished,
of the same state of the run, is left as it is.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from browse.gathering.latents.catalogue import LATENTS_PER_SHARD
from browse.gathering.library import Library
from browse.media import Media
from browse.names import part_of
from browse.notes import Notes
from browse.server.files import PAGE, TYPES
from browse.shards import Shard, encode
from collect.artefact.folder import TEMPORARY_SUFFIX, read_object, remove_orphans, write_atomic, write_json
from collect.artefact.lock import writing
from collect.errors import UserError
from collect.printable import printable
from collect.process.machine import usable_cpus

log = logging.getLogger(__name__)

EXPORT_NAME = "export.json"
FORMAT = "video-sae browse"
MOST_SHARD_BYTES = 60_000_000
"""A page of this size is still mailed, and opens in a moment."""
SAMPLED = 4
"""Shards of latents by which the size of all of them is estimated."""


def export(
    library: Library,
    folder: Path,
    *,
    notes: Notes,
    most_media_bytes: int,
    most_shard_bytes: int = MOST_SHARD_BYTES,
    page: Path = PAGE,
) -> Path:
    """Write the page of a run and return the path of its first file.

    Args:
        library: the shards of the run.
        folder: where to write; an earlier export there is written over.
        notes: of the run.
        most_media_bytes: of clips and stills; the videos that most latents show come first. 0 leaves all out.
        most_shard_bytes: of shards. If they would be more, latents that are neither edited nor named are told in
            brief, and then what is least likely to be looked at is left out.
        page: the page's own files.

    Raises:
        UserError: the folder holds something else, an artefact is damaged, or another process is writing there.
    """
    of = _state(library, notes, page, most_media_bytes, most_shard_bytes)
    with writing(folder):
        if _begin(folder, of):
            log.info("%s is finished: nothing to do", printable(folder, 4096))
            return folder / "index.html"
        remove_orphans(folder, deep=True)
        library.run.media = _media(library, folder, most_media_bytes)
        for path in sorted(path for path in page.rglob("*") if path.suffix in TYPES and path.is_file()):
            name = path.relative_to(page).as_posix()
            write_atomic(folder / (name if name == "index.html" else f"page/{name}"), path.read_bytes())
        writer = _Writer(library, folder / "shards", most_shard_bytes)
        for name in ("run", "videos", "tasks"):
            writer.write(name)
        writer.write_shard("notes", Shard(meta=notes.merged()))
        for key in library.sae_keys():
            writer.write(f"{key}/latents")
        library.brief = _brief(library, most_shard_bytes - writer.n_bytes)
        by_use = [part_of(video_id) for video_id in _by_use(library)]
        names = [name for name in library.names() if name not in writer.written]
        for name in tqdm(sorted(names, key=_importance(library, by_use)), unit="shards", desc="export"):
            writer.write(name)
        writer.finish()
        write_json(folder / EXPORT_NAME, {"format": FORMAT, "version": 1, "of": of, **_contents(folder)})
    return folder / "index.html"


class _Writer:
    """Writes shards until they are too many bytes.

    Args:
        library: makes them.
        folder: where to write.
        most_bytes: of all of them.
    """

    def __init__(self, library: Library, folder: Path, most_bytes: int) -> None:
        self._library = library
        self._folder = folder
        self._most_bytes = most_bytes
        self.n_bytes = 0
        self.written: set[str] = set()
        self._n_left_out = 0

    def write(self, name: str) -> None:
        """Make a shard and write it, unless there is no room left."""
        if self._n_left_out:
            self._n_left_out += 1
            return
        shard = self._library.shard(name)
        if shard is not None:
            self.write_shard(name, shard)

    def write_shard(self, name: str, shard: Shard) -> None:
        """Write a shard, unless there is no room left."""
        content = encode(name, shard)
        if self.n_bytes + len(content) > self._most_bytes:
            self._n_left_out += 1
            return
        write_atomic(self._folder / f"{name}.js", content)
        self.written.add(name)
        self.n_bytes += len(content)

    def finish(self) -> None:
        """Remove the shards of an earlier state of the run, and say what was left out."""
        for path in self._folder.rglob("*.js"):
            if path.relative_to(self._folder).as_posix().removesuffix(".js") not in self.written:
                path.unlink()
        if self._n_left_out:
            log.warning(
                "%d of %d shards are left out of the export, which would grow beyond %d MB: `video-sae browse` without "
                "--export shows all of them.",
                self._n_left_out,
                self._n_left_out + len(self.written),
                self._most_bytes // 10**6,
            )


def _brief(library: Library, most_bytes: int) -> dict[str, frozenset[int]]:
    """The latents to tell in brief, so that the shards of all latents fit; none if they fit as they are.

    Sizes are estimated from some shards, and four fifths of the bytes are for latents.
    """
    n_of = {key: len(library.interest(key)) for key in library.sae_keys()}
    brief: dict[str, frozenset[int]] = {}
    for key, n in n_of.items():
        share = 0.8 * most_bytes * n / max(sum(n_of.values()), 1)
        full = _bytes_per_latent(library, key, n)
        if full * n <= share:
            continue
        library.brief = {key: frozenset(range(n))}
        least = _bytes_per_latent(library, key, n)
        library.brief = {}
        n_full = int(max(share - least * n, 0.0) / max(full - least, 1.0))
        order = np.argsort(-library.interest(key), kind="stable")
        brief[key] = frozenset(order[n_full:].tolist())
        log.info("%d of %d latents are told in brief, so that the export stays small.", len(brief[key]), n)
    return brief


def _bytes_per_latent(library: Library, key: str, n_latents: int) -> float:
    n_shards = -(-n_latents // LATENTS_PER_SHARD)
    sizes: list[float] = []
    for number in sorted({n_shards * place // SAMPLED for place in range(SAMPLED)}):
        name = f"{key}/latent/{number}"
        shard = library.shard(name)
        assert shard is not None, "the SAE has that many latents"
        sizes.append(len(encode(name, shard)) / max(shard.n_rows, 1))
    return sum(sizes) / max(len(sizes), 1)


def _importance(library: Library, by_use: list[str]) -> Callable[[str], tuple[int, ...]]:
    """What to sort shards by: blind test, latents by interest, debt, then videos by how many latents show them."""
    place = {part: number for number, part in enumerate(by_use)}
    firsts = {name: number for number, name in enumerate(library.wanted_first())}

    def importance(name: str) -> tuple[int, ...]:
        kind = name.split("/")[1] if "/" in name else name
        if kind in ("blind", "blind-key"):
            return (0,)
        if kind == "latent":
            return (1, firsts[name])
        if kind == "debt":
            return (2,)
        return (3, place[name.rpartition("/")[2]])

    return importance


def _state(library: Library, notes: Notes, page: Path, *bounds: int) -> str:
    """Another text where another export would come out."""
    digest = hashlib.sha256()
    run = library.run
    for part in (run.fingerprint, run.sae_names, run.data, notes.merged()["version"], bounds):
        digest.update(f"{part}\0".encode("utf-8", "surrogateescape"))
    for path in sorted(path for path in page.rglob("*") if path.is_file()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _contents(folder: Path) -> dict[str, int]:
    """How many files an export has, and their bytes."""
    sizes = [
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != EXPORT_NAME and not path.name.endswith((".lock", TEMPORARY_SUFFIX))
    ]
    return {"n_files": len(sizes), "bytes": sum(sizes)}


def _begin(folder: Path, of: str) -> bool:
    """Mark a folder as an export; whether it is a finished one of the same state already."""
    marker = folder / EXPORT_NAME
    if marker.is_file():
        said = read_object(marker, "name another folder with --export")
        if said.get("format") == FORMAT:
            if said.get("of") == of and {name: said.get(name) for name in ("n_files", "bytes")} == _contents(folder):
                return True
            write_json(marker, {"format": FORMAT, "version": 1})
            return False
    there = next((path for path in folder.iterdir() if not path.name.endswith(".lock")), None)
    if there is not None:
        raise UserError(
            f"{printable(folder, 4096)} holds something else than an export, such as {printable(there.name)}: name an "
            "empty folder, or a new one, with --export."
        )
    write_json(marker, {"format": FORMAT, "version": 1})
    return False


def _media(library: Library, folder: Path, most_bytes: int) -> frozenset[str]:
    """Make clips and stills, and return the videos that have them."""
    made: set[str] = set()
    if not most_bytes:
        return frozenset()
    run = library.run
    media = Media(lambda: run, folder / "media", most_bytes=1 << 62)

    left = most_bytes
    videos = [video_id for video_id in _by_use(library) if run.video_path(video_id) is not None]
    workers = usable_cpus()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=len(videos), unit="videos", desc="media") as bar:
        for lot in [videos[first : first + 2 * workers] for first in range(0, len(videos), 2 * workers)]:
            for video_id, is_made in zip(lot, pool.map(media.make, lot), strict=True):
                bar.update()
                if not is_made:
                    continue
                left -= media.kept_bytes(video_id)
                if left < 0:
                    media.remove(video_id)
                else:
                    made.add(video_id)
            if left < 0:
                log.warning(
                    "The export has clips and stills of %d of %d videos, those that most latents show: allow more "
                    "with --cache-gb.",
                    len(made),
                    len(run.videos),
                )
                break
    return frozenset(made)


def _by_use(library: Library) -> list[str]:
    """The videos by how many moments of latents show them."""
    uses = Counter({video.video_id: 0 for video in library.run.videos})
    for key in library.sae_keys():
        sae = library.sae(key)
        assert sae is not None, "the keys are those of the library"
        for first in range(0, sae.n_latents, 4096):
            uses.update(sae.moments(range(first, min(first + 4096, sae.n_latents)))["video_id"])
    return sorted(uses, key=lambda video_id: (-uses[video_id], video_id))
