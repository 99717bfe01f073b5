"""The record of a training: one JSON line per window of steps in `metrics.jsonl`, and Weights & Biases when asked.

Every line has its own checksum (`collect.artefact.seal`), so that a damaged line is not mistaken for one that a crash
cut short.
"""

import json
import logging
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collect.artefact.folder import read_object, write_atomic
from collect.artefact.json_fields import Fields
from collect.artefact.seal import seal_object
from collect.errors import UserError
from collect.printable import printable
from train_sae.reading import METRICS_NAME, metrics_line, metrics_texts
from train_sae.settings import SaeSettings

log = logging.getLogger(__name__)

WANDB_NAME = "wandb.json"


class MetricsLog:
    """Appends to `metrics.jsonl`, continuing after the step that a training resumes from.

    Args:
        settings: of the SAE; they say whether to log to Weights & Biases as well.
        step: steps already taken; later lines, left by a run that was killed, are removed, and damaged ones too.

    Raises:
        UserError: Weights & Biases is asked for and not installed, or `wandb.json` is damaged.
    """

    def __init__(self, settings: SaeSettings, step: int) -> None:
        path = settings.folder / METRICS_NAME
        lines = metrics_texts(path) if path.exists() else []
        write_atomic(path, "".join(f"{line}\n" for line in _kept(path, lines, step)))
        self._wandb = _wandb_run(settings) if settings.wandb else None
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, int | float]) -> None:
        """Write one line; `metrics` has at least `step`."""
        self._file.write(json.dumps(seal_object(metrics)) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=int(metrics["step"]))

    def close(self) -> None:
        """Finish the record."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(settings: SaeSettings) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("Weights & Biases is not installed: run `pip install wandb`, or leave out --wandb.") from None
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in settings.arguments.items()}
    # Several SAEs of one process each have a run of their own.
    return wandb.init(
        project="video-sae",
        id=_wandb_id(settings.folder / WANDB_NAME),
        name=settings.name,
        dir=str(settings.folder),
        config=arguments,
        resume="allow",
        reinit="create_new",
    )


def _kept(path: Path, lines: list[str], step: int) -> list[str]:
    """The lines up to a step; a damaged one is named, unless it is the last, which a crash may have cut short."""
    kept: list[str] = []
    for number, text in enumerate(lines, 1):
        try:
            if metrics_line(path, number, text)["step"] <= step:
                kept.append(text)
        except UserError as error:
            if number < len(lines):
                log.warning("Left out of the record: %s", error)
    return kept


def _wandb_id(path: Path) -> str:
    """The id of the SAE's run, which a resumed training continues; it is on disk before a run with that id can exist.

    Raises:
        UserError: the file holds no id.
    """
    if not path.exists():
        write_atomic(path, json.dumps({"id": secrets.token_hex(8)}) + "\n")
    remedy = "delete it to begin a new Weights & Biases run there"
    return Fields(read_object(path, remedy), printable(path, 4096), remedy).text("id")
