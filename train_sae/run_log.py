"""The record of a training: one JSON line per window of steps in `metrics.jsonl`, and Weights & Biases when asked."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collect.artefact import write_atomic
from collect.errors import UserError
from train_sae.config import Member

METRICS_NAME = "metrics.jsonl"
WANDB_NAME = "wandb.json"


class MetricsLog:
    """Appends to `metrics.jsonl`, going on after the step that a training resumes from.

    Args:
        member: the SAE; its settings say whether to log to Weights & Biases as well.
        step: steps already taken; later lines, left by a run that was killed, are removed.

    Raises:
        UserError: Weights & Biases is asked for and not installed, or `wandb.json` is damaged.
    """

    def __init__(self, member: Member, step: int) -> None:
        path = member.folder / METRICS_NAME
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        write_atomic(path, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))
        self._wandb = _wandb_run(member) if member.config.wandb else None
        self._file = path.open("a", encoding="utf-8")

    def write(self, metrics: Mapping[str, int | float]) -> None:
        """Write one line; `metrics` has at least `step`."""
        self._file.write(json.dumps(dict(metrics)) + "\n")
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=int(metrics["step"]))

    def close(self) -> None:
        """Finish the record."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()


def _wandb_run(member: Member) -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError("Weights & Biases is not installed: run `pip install wandb`, or leave out --wandb.") from None
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in member.arguments().items()}
    # Several SAEs of one process each have a run of their own.
    return wandb.init(
        project="video-sae",
        id=_wandb_id(member.folder / WANDB_NAME),
        name=member.name,
        dir=str(member.folder),
        config=arguments,
        resume="allow",
        reinit="create_new",
    )


def _wandb_id(path: Path) -> str:
    """The id of the SAE's run, which a resumed training goes on with; on disk before a run of that id can exist.

    Raises:
        UserError: the file holds no id.
    """
    if not path.exists():
        write_atomic(path, json.dumps({"id": secrets.token_hex(8)}) + "\n")
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(
            f"{path} does not hold the id of a Weights & Biases run: delete it to begin a new run there."
        ) from None


def _step_of(line: str) -> float:
    """The step of a line; infinite for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
