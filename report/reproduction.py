"""How to make a run again: the command of each stage, and the versions that it ran with."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ask.config import ProfileConfig
from collect.config import CollectConfig
from features.config import FeaturesConfig
from report.record import Stage
from steer.config import SteerConfig
from train_sae.config import TrainConfig

CONFIGS = {
    "profile": ProfileConfig,
    "collect": CollectConfig,
    "train": TrainConfig,
    "features": FeaturesConfig,
    "steer": SteerConfig,
}


def command(stage: Stage) -> str:
    """The command line that a stage was run with; arguments at their defaults are left out."""
    defaults = {field.name: field.default for field in dataclasses.fields(CONFIGS[stage.name])}
    words = ["video-sae", stage.name]
    for name, value in stage.config["arguments"].items():
        default = defaults.get(name)
        if value is None or value == (list(default) if isinstance(default, tuple) else default):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [flag, *(str(single) for single in values)]
    return shlex.join(words)


def provenance(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """Versions, commit and seeds, each with the stages where they differ."""
    found: dict[str, dict[str, list[str]]] = {}
    for stage in stages:
        facts: Mapping[str, Any] = {
            **stage.config.get("versions", {}),
            "commit": stage.config.get("commit"),
            "seed": stage.config.get("arguments", {}).get("seed"),
        }
        for name, value in facts.items():
            if value is not None:
                found.setdefault(name, {}).setdefault(str(value), []).append(stage.name)
    return [
        (name, ", ".join(v if len(by_value) == 1 else f"{v} ({', '.join(names)})" for v, names in by_value.items()))
        for name, by_value in found.items()
    ]
