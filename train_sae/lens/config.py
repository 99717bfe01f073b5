"""What the `cfg.json` of a SAELens folder says, whichever release of SAELens wrote it.

Since release 6 an SAE's own settings are separate from its `metadata` (model, hook, training). Before that, everything
was in one flat object, partly under other names; it is converted to the current form, as SAELens does. A setting that
is left out has SAELens's default.

Source: sae_lens 6.54, `loading/pretrained_sae_loaders.py` (`handle_pre_6_0_config`) and the configurations in `saes/`.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from collect.artefact.folder import file_hash, read_object
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.artefact.stage import SUMMARY_NAME
from collect.errors import UserError
from collect.printable import printable
from train_sae.lens.token_norm import TokenNorm

log = logging.getLogger(__name__)

CFG_NAME = "cfg.json"
REMEDY = "put a whole copy of the SAE there, or name another one with --sae"
"""What the user can do about a folder that cannot be read; it may have been made elsewhere."""
NORMALISATIONS = ("none", "expected_average_only_in", "covariance_whitening", "layer_norm", "constant_norm_rescale")
"""What SAELens can do to the input. It folds the second and third into the weights when it saves them."""
TRAINING_ONLY = ("batchtopk", "matryoshka_batchtopk")
"""Architectures of SAEs in training; SAELens turns them into jumprelu in `save_inference_model`, but not in
`save_model`."""

_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "hook_point_layer": "hook_layer"}
_PROVENANCE = ("model_name", "hook_name", "hook_head_index", "hook_name_out", "context_size", "dataset_path")


@dataclass(frozen=True, kw_only=True)
class LensConfig:
    """The settings of an SAE in SAELens's terms, checked as far as they decide how its weights are used."""

    path: Path
    architecture: str
    d_in: int
    d_sae: int
    normalize_activations: str
    apply_b_dec_to_input: bool
    rescale_acts_by_decoder_norm: bool
    k: int
    """Active latents per token, if the architecture or the metadata gives them; otherwise 0."""
    residual_threshold: float
    """Of matching pursuit."""
    stop_on_duplicate_support: bool
    """Of matching pursuit."""
    settings: dict[str, Any]
    """All settings by SAELens's current names, without `metadata`."""
    metadata: dict[str, Any]

    @property
    def token_norm(self) -> TokenNorm:
        """What is done to each token; the other normalisations are in the weights already."""
        match self.normalize_activations:
            case "layer_norm" | "constant_norm_rescale":
                return self.normalize_activations
            case _:
                return "none"


def read_lens_config(folder: Path) -> LensConfig:
    """Read and check an SAE's `cfg.json`.

    Raises:
        UserError: there is none, it is not JSON, a setting is missing or not what it should be, or the SAE was trained
            here and its file was changed since.
    """
    path = folder / CFG_NAME
    content = read_json(path, REMEDY)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: {REMEDY}.")
    _check_unchanged(path)
    settings, metadata = modern(cast("dict[str, Any]", content))
    fields = Fields(settings, printable(path, 4096), REMEDY)
    architecture = fields.text("architecture")
    d_in, d_sae = fields.integer("d_in"), fields.integer("d_sae")
    if min(d_in, d_sae) < 1:
        raise UserError(f"{path} says d_in = {d_in} and d_sae = {d_sae}, where both are at least 1: {REMEDY}.")
    normalisation = settings.get("normalize_activations") or "none"
    known = (*NORMALISATIONS, "constant_scalar_rescale") if architecture == "temporal" else NORMALISATIONS
    if normalisation not in known:
        shown = printable(repr(normalisation), 60)
        raise UserError(f"{path} says normalize_activations = {shown}, which SAELens does not know: {REMEDY}.")
    threshold = fields.number("residual_threshold") if "residual_threshold" in settings else 1e-2
    if threshold < 0:
        raise fields.error("residual_threshold", "a number of at least 0")
    return LensConfig(
        path=path,
        architecture=architecture,
        d_in=d_in,
        d_sae=d_sae,
        normalize_activations=str(normalisation),
        apply_b_dec_to_input=fields.flag("apply_b_dec_to_input", absent=True),
        rescale_acts_by_decoder_norm=fields.flag("rescale_acts_by_decoder_norm", absent=architecture in TRAINING_ONLY),
        k=_active(fields, architecture, d_in, d_sae, metadata),
        residual_threshold=threshold,
        stop_on_duplicate_support=fields.flag("stop_on_duplicate_support", absent=True),
        settings=settings,
        metadata=metadata,
    )


def _check_unchanged(cfg: Path) -> None:
    """Check that a `cfg.json` is what the training in its folder wrote; one without a summary is accepted as it is.

    SAELens's format has no room for a checksum, so the summary holds it.

    Raises:
        UserError: it was changed after the training, or the summary is damaged.
    """
    path = cfg.parent / SUMMARY_NAME
    if not path.exists():
        return
    remedy = f"put the old {cfg.name} back, or delete {printable(path, 4096)} if the change was meant"
    files: Any = read_object(path, remedy).get("files")
    entry: Any = files.get(cfg.name) if isinstance(files, dict) else None
    if isinstance(entry, dict) and entry.get("sha256") != file_hash(cfg):
        raise UserError(f"{printable(cfg, 4096)} was changed after its SAE was trained: {remedy}.")


def modern(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert a configuration of any release to the current form.

    Args:
        content: what `cfg.json` holds.

    Returns:
        The settings by their current names, without `metadata`; and the metadata.
    """
    found = content.get("metadata")
    metadata = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    settings = {name: value for name, value in content.items() if name != "metadata"}
    version = re.match(r"\d+", str(content.get("sae_lens_version") or metadata.get("sae_lens_version") or ""))
    if version and int(version[0]) >= 6:
        return settings, metadata
    settings = {_RENAMED.get(name, name): value for name, value in settings.items()}
    if settings.get("architecture") is None:
        settings["architecture"] = "standard"
    activation = settings.get("activation_fn") or settings.get("activation_fn_str")
    extra = settings.get("activation_fn_kwargs")
    if activation == "topk" and isinstance(extra, dict) and extra.get("k") is not None:
        settings |= {"architecture": "topk", "k": extra["k"]}
    elif activation not in (None, "relu", "topk"):
        log.warning("The activation %s is taken as relu, as SAELens 6 does.", printable(activation, 60))
    if isinstance(settings.get("normalize_activations"), bool):
        settings["normalize_activations"] = "expected_average_only_in" if settings["normalize_activations"] else "none"
    flat = {name: settings[name] for name in _PROVENANCE if settings.get(name) is not None}
    if isinstance(flat.get("hook_name"), str) and isinstance(settings.get("hook_layer"), int):
        flat["hook_name"] = flat["hook_name"].replace("{layer}", str(settings["hook_layer"]))
    return settings, {**flat, **metadata}


def _active(fields: Fields, architecture: str, d_in: int, d_sae: int, metadata: dict[str, Any]) -> int:
    if architecture in ("topk", "abstopk"):
        k = fields.integer("k") if fields.has("k") or "k" in fields.names() else 100
        if not 1 <= k <= d_sae:
            raise fields.error("k", f"a number of latents, from 1 to {d_sae}")
        return k
    if architecture == "matching_pursuit":
        k = fields.integer("max_iterations") if fields.has("max_iterations") else d_in
        if k < 1:
            raise fields.error("max_iterations", "a number of at least 1")
        return k
    k = metadata.get("k", 0)
    return k if type(k) is int and 0 <= k <= d_sae else 0
