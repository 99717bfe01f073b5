"""Where a plan finds a model's sizes: its folder, the table of known models, or its config.json on the hub."""

import json
from pathlib import Path
from typing import Any, cast

from collect.errors import UserError
from collect.plan_known import KNOWN_MODELS
from collect.plan_model import ModelSizes, sizes_of

PROCESSOR_FILES = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")


def read_sizes(model: str) -> ModelSizes:
    """Read a model's sizes from its folder, from the table of known models, or from its config.json on the hub.

    Raises:
        UserError: there is no such model, or its configuration lacks a size or is of no supported family.
    """
    folder = Path(model)
    if folder.is_dir():
        return sizes_of(model, _json(folder / "config.json"), _processor(folder))
    if model in KNOWN_MODELS:
        known = KNOWN_MODELS[model]
        return sizes_of(model, known, cast("dict[str, Any]", known.get("processor", {})))
    config = _hub_config(model)
    return sizes_of(model, config, {})


def _json(path: Path) -> dict[str, Any]:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is missing or is no model configuration: give a folder that holds one, or a hub id.")
    return cast("dict[str, Any]", content)


def _processor(folder: Path) -> dict[str, Any]:
    """The video processor's configuration, under any of the names that it has had."""
    for name in PROCESSOR_FILES:
        if (folder / name).is_file():
            content = _json(folder / name)
            inner = content.get("video_processor")
            return cast("dict[str, Any]", inner) if isinstance(inner, dict) else content
    return {}


def _hub_config(model: str) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return _json(Path(hf_hub_download(model, "config.json")))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"{model} is no folder, is not among the models whose sizes are known here "
            f"({', '.join(sorted(KNOWN_MODELS))}), and the hub does not give its config.json ({reason})."
        ) from None
