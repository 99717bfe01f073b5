"""The page as files that open without a server: the same page, shards and media that the server gives.

    DIR/index.html     to be opened
    DIR/page/          its styles and scripts
    DIR/shards/        what it loads; `notes.js` holds the notes of the run as they were
    DIR/media/         clips and stills, with the sentinels of `browse.media`
    DIR/export.json    written first: says that the folder is an export, which may be written again

An interrupted export is continued by writing it again: clips and stills that are there are kept.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from browse.gathering.library import Library
from browse.gathering.media_names import clip_name, still_name
from browse.media import Media
from browse.notes import Notes
from browse.server.files import TYPES
from browse.shards import Shard, encode
from collect.artefact.folder import read_object, remove_orphans, write_atomic, write_json
from collect.artefact.lock import writing
from collect.errors import UserError
from collect.printable import printable

log = logging.getLogger(__name__)

EXPORT_NAME = "export.json"
FORMAT = "video-sae browse"
PAGE = Path(__file__).parent / "page"


def export(library: Library, folder: Path, *, notes: Notes, most_media_bytes: int, page: Path = PAGE) -> Path:
    """Write the page of a run and return the path of its first file.

    Args:
        library: the shards of the run.
        folder: where to write; an earlier export there is written over.
        notes: of the run.
        most_media_bytes: of clips and stills; the videos that most latents show come first. 0 leaves all out.
        page: the page's own files.

    Raises:
        UserError: the folder holds something else, an artefact is damaged, or another process is writing there.
    """
    with writing(folder):
        _begin(folder)
        remove_orphans(folder, deep=True)
        library.run.media = _media(library, folder, most_media_bytes)
        for path in sorted(path for path in page.rglob("*") if path.suffix in TYPES and path.is_file()):
            name = path.relative_to(page).as_posix()
            write_atomic(folder / (name if name == "index.html" else f"page/{name}"), path.read_bytes())
        written = {"notes"}
        names = list(library.names())
        for name in tqdm(names, unit="shards", desc="export"):
            shard = library.shard(name)
            if shard is not None:
                write_atomic(folder / "shards" / f"{name}.js", encode(name, shard))
                written.add(name)
        write_atomic(folder / "shards" / "notes.js", encode("notes", Shard(meta=notes.merged())))
        for path in (folder / "shards").rglob("*.js"):  # of an earlier state of the run
            if path.relative_to(folder / "shards").as_posix().removesuffix(".js") not in written:
                path.unlink()
    return folder / "index.html"


def _begin(folder: Path) -> None:
    marker = folder / EXPORT_NAME
    if marker.is_file() and read_object(marker, "name another folder with --export").get("format") == FORMAT:
        return
    there = next((path for path in folder.iterdir() if not path.name.endswith(".lock")), None)
    if there is not None:
        raise UserError(
            f"{printable(folder, 4096)} holds something else than an export, such as {printable(there.name)}: name an "
            "empty folder, or a new one, with --export."
        )
    write_json(marker, {"format": FORMAT, "version": 1})


def _media(library: Library, folder: Path, most_bytes: int) -> frozenset[str]:
    """Make clips and stills, and return the videos that have them."""
    made: set[str] = set()
    if not most_bytes:
        return frozenset()
    run = library.run
    media = Media(lambda: run, folder / "media", most_bytes=1 << 62)
    left = most_bytes
    for video_id in tqdm(_by_use(library), unit="videos", desc="media"):
        names = [clip_name(video_id), still_name(video_id, 0)]
        if run.video_path(video_id) is None or not all(media.make(name.removeprefix("media/")) for name in names):
            continue
        left -= media.kept_bytes(video_id)
        if left < 0:
            log.warning(
                "The export has clips and stills of %d of %d videos, those that most latents show: allow more with "
                "--cache-gb.",
                len(made),
                len(run.videos),
            )
            media.remove(video_id)
            break
        made.add(video_id)
    return frozenset(made)


def _by_use(library: Library) -> Iterable[str]:
    """The videos by how many moments of latents show them."""
    uses = Counter({video.video_id: 0 for video in library.run.videos})
    for key in library.sae_keys():
        sae = library.sae(key)
        assert sae is not None, "the keys are those of the library"
        for first in range(0, sae.n_latents, 4096):
            uses.update(sae.moments(range(first, min(first + 4096, sae.n_latents)))["video_id"])
    return sorted(uses, key=lambda video_id: (-uses[video_id], video_id))
