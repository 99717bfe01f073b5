"""Multiple-choice questions as the hub's copies of Perception Test have them: parquet, one row per question.

Columns: video_name, question, question_id, options, answer_id, area, reasoning, tag; both ids are text, and the test
split has no answers. The rows are passed on as the benchmark's own JSON, so that one place reads and checks both.

Source: the cards of the hub's data sets lmms-lab/PerceptionTest_Val and lmms-lab/PerceptionTest.
"""

import re
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from collect.artefact.json_fields import Fields
from collect.data.video_ids import plain_id
from collect.errors import UserError
from collect.printable import printable

CONFIG_PREFIX = "mc_question"
PLACES = ("*.parquet", "annotations/*.parquet", "mc_question*/*.parquet", "data/*.parquet")
OWN_COLUMNS = ("question", "options", "answer_id", "area", "reasoning", "tag")


@dataclass(frozen=True, kw_only=True)
class HubVideo:
    """The questions about one video."""

    split: str
    """`train`, `valid`, `test`, or `unknown` if neither the file nor the hub names it."""
    fields: Fields
    """An object in the benchmark's own schema that holds only `mc_question`."""


def parquet_files(folder: Path) -> list[Path]:
    """The question files of a data folder, which may be a clone of a hub data set."""
    return sorted(path for place in PLACES for path in folder.glob(place))


def is_hub_name(source: Path) -> bool:
    """Whether something that is not a path on this machine could be a data set on the hub."""
    return not source.exists() and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source.as_posix()) is not None


def read_parquet(paths: Iterable[Path]) -> dict[str, list[HubVideo]]:
    """Read the questions of parquet files.

    Returns:
        Video id -> what each file says about it.

    Raises:
        UserError: a file is not parquet or has no column `video_name`.
    """
    found: dict[str, list[HubVideo]] = {}
    for path in paths:
        try:
            with _without_words():
                videos = _by_video(_rows_of(path), str(path), _split_named(path.name))
        except UserError:
            raise
        except Exception as error:  # of a damaged file the libraries raise whatever their parsers do
            reason = printable(str(error).strip().partition("\n")[0] or repr(error), 160)
            raise UserError(
                f"{path} cannot be read as parquet ({reason}): fetch it again, or move it out of the data folder."
            ) from None
        for video_id, video in videos.items():
            found.setdefault(video_id, []).append(video)
    return found


def _rows_of(path: Path) -> "Iterable[dict[str, Any]]":
    """The rows of a parquet file; streaming avoids a second copy of it in a cache."""
    import datasets

    return cast(
        "Iterable[dict[str, Any]]",
        datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True),
    )


@contextmanager
def _without_words() -> Generator[None]:
    """Keep datasets from writing to the terminal itself what its exceptions say too."""
    from datasets.utils import logging as words

    before = words.get_verbosity()
    words.set_verbosity(words.CRITICAL)
    try:
        yield
    finally:
        words.set_verbosity(before)


def read_hub(name: str) -> dict[str, list[HubVideo]]:
    """Read the questions of a data set of the hub, such as `lmms-lab/PerceptionTest_Val`.

    Raises:
        UserError: there is no network or no such data set, or it has no multiple-choice questions.
    """
    import datasets

    found: dict[str, list[HubVideo]] = {}
    try:
        configs = [c for c in datasets.get_dataset_config_names(name) if c.startswith(CONFIG_PREFIX)]
        for config in configs:
            for split, rows in datasets.load_dataset(name, config, streaming=True).items():
                videos = _by_video(rows, f"{name}, {config}", _split_named(str(split)))
                for video_id, video in videos.items():
                    found.setdefault(video_id, []).append(video)
    except UserError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"{name} is neither a folder here nor a data set that the hub gives ({reason}): check the path or the "
            "name, and the network."
        ) from None
    if not found:
        raise UserError(f"{name} has no configuration whose name begins with {CONFIG_PREFIX}: choose another data set.")
    return found


def _by_video(rows: Iterable[Mapping[str, Any]], place: str, split: str) -> dict[str, HubVideo]:
    records: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name = row.get("video_name")
        if not isinstance(name, str) or not name:
            raise UserError(f"{place} has a row without `video_name`: it is no table of questions; fetch it again.")
        records.setdefault(plain_id(name), []).append(_record(row))
    return {
        video_id: HubVideo(
            split=split, fields=Fields({"mc_question": content}, f"{place}: video '{printable(video_id)}'")
        )
        for video_id, content in records.items()
    }


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    record = {"id": row.get("question_id")} | {name: row.get(name) for name in OWN_COLUMNS}
    if record["answer_id"] == "":  # withheld
        record["answer_id"] = None
    if isinstance(record["tag"], str):
        record["tag"] = [record["tag"]]
    return record


def _split_named(text: str) -> str:
    for word, split in (("valid", "valid"), ("val", "valid"), ("train", "train"), ("test", "test")):
        if word in text.lower():
            return split
    return "unknown"
