"""Beginning, resuming and finishing a stage: the same for every stage, in its artefact folder.

    with writing(folder):                                  the one process that writes there
        if begin_or_resume(folder, STAGE, config, inputs): finished before, and nothing has changed since
            return folder
        …
        write_summary(folder, figures, files)              last: with it the stage is finished

`summary.json` names the files that the stage made, with their sizes and hashes. A folder is finished when it has this
file and every file is as it says; the existence of a file alone does not count. Whatever has changed is made again.

The store of `collect` is too large to be hashed: its manifest and its logs say what is there (`collect.store.verify`).
"""

import logging
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

from collect.artefact.config_json import check_resume, write_config
from collect.artefact.folder import file_hash, read_object, remove_orphans, write_json
from collect.errors import UserError
from collect.printable import printable

logger = logging.getLogger(__name__)

SUMMARY_NAME = "summary.json"


def begin_or_resume(
    folder: Path,
    stage: str,
    config: object,
    inputs: Mapping[str, str],
    *,
    ignore: Collection[str] = (),
    recorded: Collection[str] = (),
    paths: Mapping[str, Path] | None = None,
    formerly: Mapping[str, object] | None = None,
) -> bool:
    """Begin a stage in a folder, or continue it; the caller holds the folder (`collect.artefact.lock.writing`).

    Args:
        folder: the artefact folder.
        stage: name of the stage.
        config: its arguments, as for `collect.artefact.folder.write_config`.
        inputs: hashes of its inputs.
        ignore: arguments that may differ from those it was begun with.
        recorded: inputs that may differ too.
        paths: where inputs lie.
        formerly: what earlier versions recorded for an argument, as for `collect.artefact.config_json.check_resume`.

    Returns:
        Whether the stage is finished, so that there is nothing to do.

    Raises:
        UserError: it was begun with other arguments or inputs.
    """
    state = found_state(folder, stage, config, inputs, ignore=ignore, recorded=recorded, paths=paths, formerly=formerly)
    if state == "new":
        write_config(folder, stage, config, inputs, paths)
    return state == "finished"


def found_state(
    folder: Path,
    stage: str,
    config: object,
    inputs: Mapping[str, str],
    *,
    ignore: Collection[str] = (),
    recorded: Collection[str] = (),
    paths: Mapping[str, Path] | None = None,
    formerly: Mapping[str, object] | None = None,
) -> Literal["new", "begun", "finished"]:
    """How far a stage is, after what an interruption left and what has changed since it was finished is removed.

    Arguments and errors are those of `begin_or_resume`, which also begins it.
    """
    remove_orphans(folder, deep=True)
    if not check_resume(
        folder, stage, config, inputs, ignore=ignore, recorded=recorded, places=paths, formerly=formerly
    ):
        _remove(folder, [SUMMARY_NAME])  # of another run, whose config.json is gone
        return "new"
    if is_finished(folder):
        logger.info("%s is finished: nothing to do", printable(folder, 4096))
        return "finished"
    if (folder / SUMMARY_NAME).exists():
        logger.warning("what has changed in %s is made again", printable(folder, 4096))
        _remove(folder, [SUMMARY_NAME, *changes_since(folder)])
    return "begun"


def is_finished(folder: Path) -> bool:
    """Whether a stage is finished, and all its files are as they were then."""
    if not (folder / SUMMARY_NAME).exists():
        return False
    changes = changes_since(folder)
    if changes:
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        first = printable(changes[0])
        logger.warning("%s is not as it was when it was finished: see %s%s", printable(folder, 4096), first, more)
    return not changes


def changes_since(folder: Path) -> list[str]:
    """Names of the files in a finished folder that are missing or are not as its summary says."""
    try:
        files = read_object(folder / SUMMARY_NAME, "run its stage again").get("files")
    except UserError:
        return [SUMMARY_NAME]
    if not isinstance(files, dict) or not files:
        return [SUMMARY_NAME]  # it does not say which files it is about
    said = cast("dict[str, Any]", files)
    return [name for name in said if not _is_within(folder, name) or _entry(folder / name, said[name]) != said[name]]


def write_summary(folder: Path, content: Mapping[str, Any], files: Iterable[str]) -> None:
    """Write `summary.json`, which says that the stage is finished.

    Args:
        folder: the artefact folder.
        content: the stage's figures.
        files: names of everything that the stage made and later stages rely on, relative to the folder. For a folder
            among them, only the number of files and their bytes are recorded: its files have checksums of their own.
    """
    entries = {name: _entry(folder / name) for name in sorted(files)}
    absent = [name for name, entry in entries.items() if entry is None]
    assert not absent, f"{folder} lacks {absent}, which its stage made"
    write_json(folder / SUMMARY_NAME, {**content, "files": entries})


def _is_within(folder: Path, name: str) -> bool:
    """Whether a name that was read from a file leads to a place in the folder."""
    try:
        place = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    return place != folder.resolve() and place.is_relative_to(folder.resolve())


def _remove(folder: Path, names: Iterable[str]) -> None:
    for path in (folder / name for name in names if _is_within(folder, name)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _entry(path: Path, like: object = None) -> dict[str, Any] | None:
    """What a summary says about a file or folder; None if there is neither.

    Args:
        path: the file or folder.
        like: what it should be; a file of another size is not read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            sizes = [entry.stat().st_size for entry in path.rglob("*") if entry.is_file()]
            return {"n_files": len(sizes), "bytes": sum(sizes)}
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    entry: dict[str, Any] = {"bytes": found.st_size}
    if isinstance(like, dict) and cast("dict[str, Any]", like).get("bytes") != found.st_size:
        return entry
    return {**entry, "sha256": file_hash(path)}
