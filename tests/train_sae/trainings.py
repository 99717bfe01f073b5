"""Short trainings, and what they leave."""

import json
from pathlib import Path
from typing import Any

from tests.train_sae.stores import SITE
from train_sae.config import TrainConfig


def short_training(run: Path, **changes: Any) -> TrainConfig:
    """A short training: about 1,800 train tokens, 28 steps. Single values may be given for what a sweep takes."""
    plain: dict[str, Any] = {"run": run, "site": SITE, "d_sae": 64, "k": 2, "epochs": 2.0, "batch_size": 128}
    plain |= {"lr": 3e-3, "device": "cpu", "checkpoint_every": 10, **changes}
    options = [f"{name}={plain.pop(name)}" for name in ("checkpoint_every", "dead_tokens") if name in plain]
    single = {
        name: (plain[name],)
        for name in ("arch", "d_sae", "k", "lr")
        if name in plain and not isinstance(plain[name], tuple)
    }
    return TrainConfig(**{**plain, **single, "options": (*options, *plain.get("options", ()))})


def summary_of(folder: Path) -> dict[str, Any]:
    """What a training was and how good it is, but for its name and the hashes of its files, in which the name is."""
    content = json.loads((folder / "summary.json").read_text())
    return {name: value for name, value in content.items() if name not in ("name", "files", "checksum")}
