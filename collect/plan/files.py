"""Where a plan finds a model's sizes: its folder, the table of known models, or its config.json on the hub."""

from pathlib import Path
from typing import Any, cast

from collect.artefact.json_file import read_json
from collect.errors import UserError
from collect.plan.families import FAMILIES, sizes_of
from collect.plan.known import KNOWN_MODELS
from collect.plan.model import ModelSizes
from collect.vlm.files import whole_config

PROCESSOR_FILES = ("video_preprocessor_config.json", "processor_config.json", "preprocessor_config.json")


def read_sizes(model: str) -> ModelSizes:
    """Read a model's sizes from its folder, from the table of known models, or from its config.json on the hub.

    Raises:
        UserError: there is no such model, or its configuration lacks a size or is not of a supported family.
    """
    folder = Path(model)
    if folder.is_dir():
        return sizes_of(model, _completed(model, _json(folder / "config.json")), _processor(folder))
    if model in KNOWN_MODELS:
        known = KNOWN_MODELS[model]
        return sizes_of(model, known, cast("dict[str, Any]", known.get("processor", {})))
    return sizes_of(model, _completed(model, _hub_config(model)), {})


def _completed(model: str, config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with everything that it leaves out; unknown families are left for `sizes_of` to refuse."""
    family = config.get("model_type")
    return whole_config(model, config) if isinstance(family, str) and family in FAMILIES else config


def _json(path: Path) -> dict[str, Any]:
    remedy = "give a folder that holds a model's config.json, or a hub id"
    content: object = read_json(path, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: {remedy}.")
    return cast("dict[str, Any]", content)


def _processor(folder: Path) -> dict[str, Any]:
    """The video processor's configuration, under any name that the file has had."""
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
