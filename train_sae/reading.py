"""What a training wrote, for other packages: which SAEs a run has, their summaries, the records of their trainings.

    RUN/sae/NAME/   config.json     from when the training began
                    metrics.jsonl   a line per window of steps; every line has its own checksum
                    cfg.json        once the SAE is complete, with its weights
                    summary.json    last; it holds the hashes of the folder's files

Other packages open none of these files by name. An SAE itself is read by `train_sae.sae.load_sae`, and checked against
the run's activations by `train_sae.opened`.
"""

import functools
import logging
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from collect.artefact.config_json import read_config
from collect.artefact.folder import CONFIG_NAME, file_hash, read_object
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import parse_json, read_bytes
from collect.artefact.run_data import recorded_path
from collect.artefact.seal import CHECKSUM, object_condition
from collect.artefact.stage import SUMMARY_NAME
from collect.errors import UserError
from collect.printable import printable
from train_sae.lens.config import CFG_NAME
from train_sae.lens.folding import WEIGHTS_NAME

log = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"
_REMEDY = f"delete it; only the chart of the training needs {METRICS_NAME}"
_TEXTS = ("site", "architecture")
_COUNTS = ("d_in", "d_sae", "k", "n_steps", "n_training_tokens", "n_train_tokens")
_NUMBERS = ("lr", "decoder_coherence_mean")
_QUALITY_COUNTS = ("n_tokens", "n_dead", "n_dense")
_QUALITY_NUMBERS = ("fvu", "l0", "cosine", "relative_bias")


def begun_saes(run: Path) -> list[str]:
    """Names of the SAEs of a run whose training has begun, including finished ones, in order."""
    return sorted(path.parent.name for path in (run / "sae").glob(f"*/{CONFIG_NAME}"))


def finished_saes(run: Path) -> list[str]:
    """Names of the SAEs of a run that can be loaded, in order; an SAE may also have been put there by hand."""
    return sorted(path.parent.name for path in (run / "sae").glob(f"*/{CFG_NAME}"))


def find_sae(run: Path, name: str | None = None) -> Path:
    """The folder of an SAE: the run's with that name, any other folder that holds one, or the run's only one.

    Args:
        run: the run.
        name: name below the run's `sae/`, or path of a folder.

    Raises:
        UserError: there is none, none of that name, or several and no name was given.
    """
    folders = [run / "sae" / found for found in finished_saes(run)]
    names = ", ".join(printable(folder.name, 60) for folder in folders)
    if name is None:
        if not folders:
            raise UserError(
                f"{run / 'sae'} holds no SAE: run `video-sae train --run {run} --site …` first, or give the folder of "
                "one with --sae."
            )
        if len(folders) > 1:
            raise UserError(f"{run / 'sae'} holds several SAEs ({names}): name one with --sae.")
        return folders[0]
    for folder in folders:
        if folder.name == name:
            return folder
    elsewhere = Path(name).expanduser()
    if not (elsewhere / CFG_NAME).is_file():
        raise UserError(
            f"{run / 'sae'} holds no SAE named {printable(name, 200)!r}: it has {names or 'none'}; nor is there a "
            f"folder of that name with a {CFG_NAME}."
        )
    for folder in folders:
        if folder.samefile(elsewhere):
            return folder
    return elsewhere


def _weights_hash(path: Path) -> str:
    status = path.stat()
    return _hash_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=64)
def _hash_of(path: Path, *_: int) -> str:
    """The hash of a file, taken once as long as it is the same: two stages are about one SAE, and pages ask often."""
    return file_hash(path)


def check_same_sae(run: Path, folders: Mapping[str, Path]) -> None:
    """Check that stages that have begun are about the SAE that is there now, not about an earlier one of its name.

    An SAE that is no longer there cannot be compared with.

    Args:
        run: the run folder.
        folders: artefact folders of these stages, by the name of the stage.

    Raises:
        UserError: one is about another SAE.
    """
    for stage, folder in folders.items():
        if not (folder / CONFIG_NAME).is_file():
            continue
        before = read_config(folder, stage)["inputs"].get("sae")
        places = [run / "sae" / folder.name, recorded_path(folder, stage, "sae", run)]
        weights = [place / WEIGHTS_NAME for place in places if place is not None]
        there = next((path for path in weights if path.is_file()), None)
        if before is not None and there is not None and _weights_hash(there) != before:
            raise UserError(
                f"{printable(folder, 4096)} was made with another SAE than the one that is in "
                f"{printable(there.parent, 4096)} now: delete the former and run `video-sae {stage}` again, or put the "
                "earlier SAE back."
            )


def read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of a finished training.

    Returns:
        Its content; of `train` and `held_out`, which may be None, the numbers that others read.

    Raises:
        UserError: there is none, it is damaged, or a figure is missing or of another kind.
    """
    remedy = f"delete {printable(folder, 4096)} and train that SAE again"
    content = read_object(folder / SUMMARY_NAME, remedy)
    fields = Fields(content, printable(folder / SUMMARY_NAME, 4096), remedy)
    for name in _TEXTS:
        fields.text(name)
    for name in _COUNTS:
        if fields.has(name):
            fields.integer(name)
    for name in _NUMBERS:
        if fields.has(name):
            fields.number(name)
    train, held_out = _quality(fields.child("train")), None
    if fields.has("held_out"):
        held_out = _quality(fields.child("held_out"))
    return {**content, "train": train, "held_out": held_out}


def _quality(fields: Fields) -> dict[str, Any]:
    """The numbers of a quality that others read; None if one is not defined."""
    counts = {name: fields.integer(name) for name in _QUALITY_COUNTS}
    return {**counts, **{name: fields.number(name) if fields.has(name) else None for name in _QUALITY_NUMBERS}}


def read_metrics(folder: Path, n_steps: int | None = None) -> list[dict[str, int | float]]:
    """The lines of a finished training's `metrics.jsonl`; none if there is no such file.

    Missing lines are a warning, because a resumed training leaves out damaged ones.

    Args:
        folder: the SAE's.
        n_steps: steps of the whole training, after which the last line was written; None if that is not known.

    Raises:
        UserError: a line is damaged, doubled or moved; the message says which.
    """
    path = folder / METRICS_NAME
    texts = metrics_texts(path) if path.exists() else []
    found = [metrics_line(path, number, text) for number, text in enumerate(texts, 1)]
    steps = [line["step"] for line in found]
    for number, (before, step) in enumerate(pairwise(steps), 2):
        if step <= before:
            raise UserError(
                f"{printable(path, 4096)}, line {number}, is of step {step} and the one before of step {before}: "
                f"{_REMEDY}."
            )
    ends = [0, *steps[:-1]]
    begins = [line["step"] - line.get("n_steps", line["step"] - end) for line, end in zip(found, ends, strict=False)]
    if begins != ends[: len(begins)] or (steps and n_steps not in (None, steps[-1])):
        log.warning("%s lacks lines: the chart of the training leaves out steps.", path)
    return found


def metrics_texts(path: Path) -> list[str]:
    """The lines of a `metrics.jsonl` as they are; the last one may have been cut short."""
    content = read_bytes(path, _REMEDY)
    return content.decode("utf-8", "replace").removesuffix("\n").split("\n") if content else []


def metrics_line(path: Path, number: int, text: str) -> dict[str, int | float]:
    """The numbers of a line of a `metrics.jsonl`.

    Args:
        path: the file.
        number: of the line, from 1.
        text: the line.

    Raises:
        UserError: it is damaged.
    """
    place, remedy = f"{printable(path, 4096)}, line {number},", "delete that line"
    content: object = parse_json(text, place, remedy)
    fields = Fields(content, place, remedy)
    if object_condition(cast("dict[str, Any]", content)) == "changed":
        raise UserError(f"{place} does not match its `{CHECKSUM}`: {remedy}.")
    found: dict[str, int | float] = {"step": fields.integer("step")}
    for name, value in cast("dict[str, object]", content).items():
        if name in (CHECKSUM, "step"):
            continue
        # A figure may be undefined (NaN), but is never a whole number too large for a float.
        found[name] = value if isinstance(value, float) else fields.number(name)
    return found
