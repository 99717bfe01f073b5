"""The stage `download`: Perception Test's files into one folder that `--data` takes.

    OUT/videos/*.mp4  OUT/annotations/*.json  OUT/cut_frame_mapping_*.json
    OUT/archives/       .zip files until they are unpacked, and what has arrived of one
    OUT/download.json   which published files are done, and which local files came from them

Every published file is fetched, checked, unpacked and recorded, one after another, small ones first. What is done is
not checked again, except that each of its files is still there in full size.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from collect.artefact.folder import write_atomic
from collect.artefact.inside import inside
from collect.artefact.json_file import read_json
from collect.artefact.lock import writing
from collect.download.config import DownloadConfig
from collect.download.http import Patience, arrived_bytes, fetch, remote_size
from collect.download.published import MOST_JSON_BYTES, RemoteFile, published_files
from collect.download.unpack import DamagedArchive, bytes_to_unpack, require_space, unpack
from collect.errors import UserError
from collect.printable import printable

logger = logging.getLogger(__name__)

RECORD_NAME = "download.json"
ARCHIVES = "archives"
FORMAT = "video-sae download"
FORMAT_VERSION = 1
MOST_RECORD_BYTES = 1 << 28


def download(config: DownloadConfig) -> Path:
    """Fetch what is missing of Perception Test; continue where an earlier run ended.

    Returns:
        The data folder.

    Raises:
        UserError: a file is not on the server, the network or the disk fails, an archive is damaged or not to be
            trusted, or another process is downloading into the folder.
    """
    folder = config.folder
    files = published_files(config.split, config.parts)
    if not files:
        raise UserError("--parts names nothing that is published for this --split: choose other ones.")
    patience = Patience(timeout_s=config.timeout_s, attempts=config.attempts)
    with writing(folder):
        record = _read_record(folder)
        todo = [file for file in files if not _is_done(folder, file, record)]
        if not todo:
            logger.info("%s is complete: nothing to do", folder)
            return folder
        _require_space(folder, todo, config, patience)
        for file in todo:
            record[file.path] = _provide(folder, file, config, patience)
            _write_record(folder, record)
    logger.info("%s holds %s; it is complete", folder, ", ".join(_contents(files, record)))
    return folder


def _read_record(folder: Path) -> dict[str, Any]:
    """Published path -> what is known about it; empty if nothing is done yet."""
    path = folder / RECORD_NAME
    if not path.exists():
        return {}
    remedy = "delete it, and everything is checked again"
    content: object = read_json(path, remedy, MOST_RECORD_BYTES)
    if isinstance(content, dict):
        record = cast("dict[str, Any]", content)
        if (record.get("format"), record.get("version")) == (FORMAT, FORMAT_VERSION) and _is_record(
            record.get("files")
        ):
            return cast("dict[str, Any]", record["files"])
    raise UserError(f"{printable(path, 4096)} is no record of this program's downloads: {remedy}.")


def _is_record(files: object) -> bool:
    """Whether every published file has the names and sizes of what came from it."""
    if not isinstance(files, dict):
        return False
    entries = list(cast("dict[str, object]", files).values())
    sizes = [cast("dict[str, object]", entry).get("files") if isinstance(entry, dict) else None for entry in entries]
    return all(
        isinstance(of_file, dict) and all(type(size) is int for size in cast("dict[str, object]", of_file).values())
        for of_file in sizes
    )


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    content = {"format": FORMAT, "version": FORMAT_VERSION, "files": record}
    write_atomic(folder / RECORD_NAME, json.dumps(content, indent=1) + "\n")


def _is_done(folder: Path, file: RemoteFile, record: dict[str, Any]) -> bool:
    if file.path not in record:
        return False
    sizes = cast("dict[str, int]", record[file.path]["files"])
    missing = [name for name, size in sizes.items() if not _has_size(inside(folder, name, folder / RECORD_NAME), size)]
    if missing:
        logger.warning(
            "%s: %d files of %s are gone or changed, such as %s: fetching it again",
            folder,
            len(missing),
            file.name,
            missing[0],
        )
    return not missing


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:  # a name in the record that no file can have
        return False


def _archive_path(folder: Path, file: RemoteFile) -> Path:
    return folder / ARCHIVES / file.name if file.is_archive else folder / file.folder / file.name


def _address(config: DownloadConfig, file: RemoteFile) -> str:
    return f"{config.base_url.rstrip('/')}/{file.path}"


def _require_space(folder: Path, todo: Sequence[RemoteFile], config: DownloadConfig, patience: Patience) -> None:
    """Refuse to begin if the disk would fill up: an archive and its unpacked content need room at the same time."""
    used, peak = 0, 0
    for file in todo:
        target = _archive_path(folder, file)
        arrived = arrived_bytes(target)
        size = arrived if target.exists() else remote_size(_address(config, file), patience, file.most_bytes)
        if size is None:
            logger.warning("the server does not say how large %s is: it is not counted", file.name)
            continue
        used += size - min(size, arrived)
        peak = max(peak, used)
        if file.is_archive:
            is_here = target.exists()
            used += bytes_to_unpack(target, folder / file.folder, file.suffix) if is_here else size * file.growth
            peak = max(peak, used)
            used -= 0 if config.keep_archives else size
    require_space(folder, peak, " + ".join(file.name for file in todo))


def _provide(folder: Path, file: RemoteFile, config: DownloadConfig, patience: Patience) -> dict[str, Any]:
    """Fetch and unpack one published file, and return its entry in the record."""
    address, target = _address(config, file), _archive_path(folder, file)
    with _byte_bar(f"fetch {file.name}") as bar:
        fetch(address, target, patience, file.most_bytes, lambda n, total: _show(bar, n, total))
    size = target.stat().st_size
    if not file.is_archive:
        _check_json(target)
        return {"url": address, "size": size, "files": {file.name: size}}
    try:
        with _byte_bar(f"unpack {file.name}") as bar:
            sizes = unpack(target, folder / file.folder, file.suffix, lambda n, total: _show(bar, n, total))
    except DamagedArchive as error:
        target.unlink()
        raise UserError(
            f"{target} was damaged ({error.reason}) and is removed: run the same command again to fetch it anew."
        ) from None
    if not config.keep_archives:
        target.unlink()
    return {"url": address, "size": size, "files": {f"{file.folder}/{name}": n for name, n in sizes.items()}}


def _check_json(path: Path) -> None:
    remedy = "it was removed; run the same command again to fetch it anew, or check --base-url"
    try:
        content: object = read_json(path, remedy, MOST_JSON_BYTES)
        if not isinstance(content, dict):
            raise UserError(f"{printable(path, 4096)} is damaged (no JSON object): {remedy}.")
    except UserError:
        if path.is_file():
            path.unlink()
        raise


def _byte_bar(text: str) -> "tqdm[Any]":
    return tqdm(unit="B", unit_scale=True, desc=text)


def _show(bar: "tqdm[Any]", n_bytes: int, total: int | None) -> None:
    if bar.total != total:  # known only now; what an earlier run fetched does not count for the rate
        bar.reset(total)
        bar.initial = bar.n = n_bytes
    bar.update(n_bytes - bar.n)


def _contents(files: Sequence[RemoteFile], record: dict[str, Any]) -> list[str]:
    counts: dict[str, int] = {}
    for file in files:
        for name in record[file.path]["files"]:
            kind = name.partition("/")[0] if "/" in name else "cut-frame mappings"
            counts[kind] = counts.get(kind, 0) + 1
    return [f"{n:,} {kind}" for kind, n in counts.items()]
