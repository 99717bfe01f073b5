"""The data of a run: found again from wherever a stage is called, and recognised by its content.

A stage records the absolute paths of what it reads (`config.json`, `paths`), and hashes of the videos (ids, file sizes,
cut frames) and of their annotations. A later stage takes the data from where an earlier one had it, or from `--data`,
and in either case checks that

- the videos are those that were collected,
- their annotations are those that the other stages of the same SAE took, and, unless `--data` says that they may have
  changed, those that were there when the earlier stage recorded the path.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from collect.artefact.config_json import read_config
from collect.artefact.folder import CONFIG_NAME
from collect.artefact.json_fields import Fields
from collect.data.perception_test import Dataset, Video, load_dataset
from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore

logger = logging.getLogger(__name__)

COLLECT = "collect"
ANNOTATIONS = "annotations"
"""Name under which a stage's `inputs` hold the hash of the annotations."""
VIDEOS = "data"
"""The same of the videos."""
_ANNOTATED = (
    "video_id",
    "split",
    "is_cup_game",
    "is_camera_moving",
    "cut_frame",
    "tracks",
    "actions",
    "sounds",
    "questions",
)


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The data that a stage reads."""

    dataset: Dataset
    annotations: str
    """Hash of the annotations of the collected videos."""


def videos_hash(videos: Iterable[Video]) -> str:
    """Hash of what decides which frames are seen: ids, file sizes, cut frames of videos with files."""
    digest = hashlib.sha256()
    for video in videos:
        assert video.path is not None, "only videos with files are collected"
        digest.update(f"{video.video_id}\0{video.path.stat().st_size}\0{video.cut_frame}\n".encode())
    return digest.hexdigest()[:32]


def annotations_hash(videos: Iterable[Video]) -> str:
    """Hash of the annotations of videos, in whichever files they are; their order does not matter."""
    digest = hashlib.sha256()
    for video in sorted(videos, key=lambda video: video.video_id):
        for name in _ANNOTATED:
            _feed(digest.update, getattr(video, name))
    return digest.hexdigest()[:32]


def _feed(add: Callable[[bytes], None], value: object) -> None:
    """Add a value to a hash, so that different values never add the same bytes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [getattr(value, field.name) for field in dataclasses.fields(value)]
        add(f"{type(value).__name__}:{len(parts)};".encode())
    elif isinstance(value, list | tuple):
        parts = list(cast("Iterable[object]", value))
        add(f"sequence:{len(parts)};".encode())
    elif isinstance(value, np.ndarray):
        array = np.ascontiguousarray(cast("np.ndarray[Any, np.dtype[Any]]", value))
        add(f"{array.dtype.str}:{array.shape};".encode())
        add(array.tobytes())
        return
    else:
        text = repr(value).encode("utf-8", "surrogatepass")
        add(f"{len(text)}:".encode())
        add(text)
        return
    for part in parts:
        _feed(add, part)


def data_of_run(
    run: Path, store: ActivationStore, given: Path | None, folders: Mapping[str, Path], own: str | None = None
) -> RunData:
    """Find and check the data of a run.

    Args:
        run: the run folder.
        store: what was collected.
        given: `--data`; None if the user named none.
        folders: artefact folders of the stages that record which annotations they took, by the name of the stage, in
            the order in which their paths are tried; that of `collect` comes after them.
        own: which of these stages asks.

    Raises:
        UserError: the data is not where it was, or is other data.
    """
    sources = {name: folder for name, folder in folders.items() if (folder / CONFIG_NAME).is_file()}
    sources[COLLECT] = store.folder
    source, path = (None, given) if given is not None else _recorded_path(run, sources)
    dataset = load_dataset(path)
    wanted = _collected_ids(store)
    collected = [video for video in dataset.videos if video.video_id in wanted]
    _check_videos(store, dataset, collected)
    found = annotations_hash(collected)
    for name, folder in sources.items():
        before = read_config(folder, name)["inputs"].get(ANNOTATIONS)
        if before is None or before == found or name == own:
            continue  # a stage compares itself with itself when it resumes
        if name != COLLECT:
            raise UserError(
                f"{printable(folder, 4096)} was made with other annotations than those in {printable(path, 4096)}"
                f"{_where(folder, name, run)}: give both stages the same --data, or delete that folder."
            )
        if source == COLLECT:
            raise UserError(
                f"The annotations in {printable(path, 4096)} have changed since `video-sae collect` took its videos "
                "from there: put the old ones back, or say with --data that these are to be used."
            )
        logger.info("The annotations in %s are others than when the videos were collected.", printable(path, 4096))
    return RunData(dataset=dataset, annotations=found)


def check_agreement(run: Path, folders: Mapping[str, Path]) -> None:
    """Check that all stages that have begun took the same annotations.

    Args:
        run: the run folder.
        folders: as for `data_of_run`.

    Raises:
        UserError: two of them did not.
    """
    found = {
        name: read_config(folder, name)["inputs"].get(ANNOTATIONS)
        for name, folder in folders.items()
        if (folder / CONFIG_NAME).is_file()
    }
    known = [(name, value) for name, value in found.items() if value is not None]
    for name, value in known[1:]:
        first, before = known[0]
        if value != before:
            raise UserError(
                f"{printable(folders[name], 4096)} was made with other annotations{_where(folders[name], name, run)} "
                f"than {printable(folders[first], 4096)}{_where(folders[first], first, run)}: "
                "delete one of them and run its stage again with the other one's --data."
            )


def recorded_path(folder: Path, stage: str, name: str, run: Path) -> Path | None:
    """Where a stage had an input. If it lay within the run, it is looked for in the run, which may have been moved.

    Args:
        folder: the artefact folder of the stage.
        stage: its name.
        name: the argument that named the input, such as `data`.
        run: the run folder as it is now.

    Returns:
        A path, at which there may be nothing any more; None if the input was no path.
    """
    config = read_config(folder, stage)
    paths = cast("dict[str, Any]", config.get("paths", {}))
    if not isinstance(paths.get(name), str):
        before = config["arguments"].get(name)  # of a program that kept no absolute paths
        return Path(before) if isinstance(before, str) else None
    path = Path(paths[name])
    moved_from = paths.get("run")
    if isinstance(moved_from, str) and path.is_relative_to(moved_from):
        within = run / path.relative_to(moved_from)
        if within.exists():
            return within
    return path


def collected_with(folder: Path) -> Fields:
    """The arguments of `collect`, from its folder; if somebody changed them by hand, one may be missing.

    Raises:
        UserError: its config.json is missing or damaged.
    """
    path = printable(folder / CONFIG_NAME, 4096)
    remedy = f"put the old file back, or delete {printable(folder, 4096)} and collect again"
    return Fields(read_config(folder, COLLECT)["arguments"], f"{path}, `arguments`", remedy)


def model_of_run(run: Path) -> str:
    """The model that a run was collected with: its folder, wherever this is called from, or its name on the hub.

    Raises:
        UserError: the folder is gone, or config.json does not name the model.
    """
    folder = run / "activations"
    if "model" not in read_config(folder, COLLECT).get("paths", {}):
        return collected_with(folder).text("model")
    path = recorded_path(folder, COLLECT, "model", run)
    if path is None or not path.is_dir():
        raise UserError(
            f"{printable(folder, 4096)} was collected with the model in {printable(path, 4096)}, which is not there "
            "any more: put it back there."
        )
    return str(path)


def _recorded_path(run: Path, sources: Mapping[str, Path]) -> tuple[str, Path]:
    """The stage that has recorded where its data lies, and where that is."""
    for name, folder in sources.items():
        path = recorded_path(folder, name, "data", run)
        if path is None:
            continue
        if not path.exists():
            raise UserError(
                f"`video-sae {name}` took the data of {printable(run, 4096)} from {printable(path, 4096)}, which is "
                "not there any more: give the folder where it is now with --data."
            )
        return name, path
    raise UserError(f"{printable(run, 4096)} does not say where its data lies: give its folder with --data.")


def _where(folder: Path, stage: str, run: Path) -> str:
    path = recorded_path(folder, stage, "data", run)
    return "" if path is None else f" (it took those in {printable(path, 4096)})"


def _collected_ids(store: ActivationStore) -> frozenset[str]:
    """Videos that were to be collected, whether they could be or not."""
    return frozenset(each.video_id for each in (*store.videos, *store.failures))


def _check_videos(store: ActivationStore, dataset: Dataset, collected: list[Video]) -> None:
    """Check that a data folder has the videos of a store, as far as their files are there."""
    folder = printable(dataset.folder, 4096)
    if not collected:
        raise UserError(
            f"{folder} has none of the videos that {printable(store.folder, 4096)} was collected from: "
            "give the folder that has them with --data."
        )
    ids, files = _collected_ids(store), [video for video in collected if video.path is not None]
    before = read_config(store.folder, COLLECT)["inputs"].get(VIDEOS)
    # Without all files, as in a folder of annotations alone, there is nothing to compare them by.
    if before is not None and len(files) == len(ids) and videos_hash(files) != before:
        raise UserError(
            f"{folder} has other videos under the ids of those that {printable(store.folder, 4096)} was collected from "
            "(their files differ in size, or their cut frames do): give the folder that has them with --data."
        )
