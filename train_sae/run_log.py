"""The record of a training: one JSON line per window of steps in `metrics.jsonl`, and Weights & Biases when asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collect.artefact import write_atomic
from collect.errors import UserError
from train_sae.config import Member

METRICS_NAME = "metrics.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl`, going on after the step that a training resumes from.

    Args:
        member: the SAE; its settings say whether to log to Weights & Biases as well.
        step: steps already taken; later lines, left by a run that was killed, are removed.

    Raises:
        UserError: Weights & Biases is asked for and not installed.
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
        name=member.name,
        dir=str(member.folder),
        config=arguments,
        resume="allow",
        reinit="create_new",
    )


def _step_of(line: str) -> float:
    """The step of a line; infinite for a line that a crash cut short."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
