"""The weights of a SAELens folder: checked, in float32, with every setting folded in that can be folded.

After folding, an SAE of the forms in `TENSORS` reads x − b_dec (after normalising the token, if it does) and writes f ·
W_dec + b_dec; no setting is left to look up at run time.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from collect.errors import UserError
from collect.printable import printable
from train_sae.lens.config import REMEDY, TRAINING_ONLY, LensConfig
from train_sae.tensor_file import load_tensors

WEIGHTS_NAME = "sae_weights.safetensors"
TENSORS: dict[str, tuple[str, ...]] = {
    "topk": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "jumprelu": ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"),
    "gated": ("W_enc", "W_dec", "b_gate", "b_mag", "r_mag", "b_dec"),
    "standard": ("W_enc", "W_dec", "b_enc", "b_dec"),
    "matching_pursuit": ("W_dec", "b_dec"),
}
"""What SAELens stores for each form that is encoded here."""


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of an SAE in float32, whatever type they are stored in.

    Raises:
        UserError: the file is missing or damaged, or a weight is not a finite number.
    """
    path = folder / WEIGHTS_NAME
    stored, _ = load_tensors(path, REMEDY)
    found = {name: tensor.float() for name, tensor in stored.items() if tensor.is_floating_point()}
    for name, tensor in found.items():
        if not tensor.isfinite().all():
            n_bad = int((~tensor.isfinite()).sum())
            raise UserError(
                f"{path} has {n_bad} values in {printable(name, 60)} that are not finite in float32, so that nothing "
                f"can be encoded: {REMEDY}."
            )
    scaling = found.pop("scaling_factor", None)  # of SAELens 5, which wrote ones if there was nothing to scale
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise UserError(f"{path} has a scaling_factor that is not 1, which SAELens 6 does not load either: {REMEDY}.")
    return found


def as_form(cfg: LensConfig, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The form of an SAE; does here what SAELens itself does only when it saves for inference.

    Returns:
        The architecture (jumprelu for one that exists only in training); and its tensors, with the threshold renamed.
    """
    found = dict(tensors)
    if "log_threshold" in found and "threshold" not in found:
        found["threshold"] = found.pop("log_threshold").exp()
    if cfg.architecture in TRAINING_ONLY:
        if "topk_threshold" in found and found["topk_threshold"].numel() == 1 and "b_enc" in found:
            found["threshold"] = found["topk_threshold"].reshape(1).expand_as(found["b_enc"]).clone()
        return "jumprelu", found
    return cfg.architecture, found


def check_shapes(cfg: LensConfig, form: str, tensors: Mapping[str, Tensor]) -> None:
    """Compare the weights with the sizes in the configuration.

    Raises:
        UserError: one is missing or has another shape.
    """
    shapes = {"W_enc": (cfg.d_in, cfg.d_sae), "W_dec": (cfg.d_sae, cfg.d_in), "b_dec": (cfg.d_in,)}
    for name in TENSORS[form]:
        shape = shapes.get(name, (cfg.d_sae,))
        found = tuple(tensors[name].shape) if name in tensors else "none"
        if found != shape:
            path = cfg.path.with_name(WEIGHTS_NAME)
            raise UserError(f"{path} has {name} of shape {found} where {shape} is needed: {REMEDY}.")


def fold(cfg: LensConfig, form: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the settings of the configuration into the weights.

    - `rescale_acts_by_decoder_norm`: latents are selected and counted by pre-activation × ‖W_dec[i]‖ and written along
      the unit direction.
    - `apply_b_dec_to_input` = false: x · W_enc = (x − b_dec) · W_enc + b_dec · W_enc. Matching pursuit then has no bias
      at all.
    """
    found = {name: tensors[name] for name in TENSORS[form]}
    if cfg.rescale_acts_by_decoder_norm and form in ("topk", "jumprelu"):
        found |= _without_decoder_norm(found["W_enc"], found["W_dec"], found["b_enc"])
    if not cfg.apply_b_dec_to_input:
        if form == "matching_pursuit":
            found["b_dec"] = torch.zeros_like(found["b_dec"])
        else:
            found |= _with_input_bias(found)
    return found


def _without_decoder_norm(
    W_enc: Float[Tensor, "d_in d_sae"], W_dec: Float[Tensor, "d_sae d_in"], b_enc: Float[Tensor, " d_sae"]
) -> dict[str, Tensor]:
    norms = W_dec.norm(dim=1)
    return {
        "W_enc": W_enc * norms,
        "b_enc": b_enc * norms,
        "W_dec": W_dec / norms.clamp(min=torch.finfo(norms.dtype).tiny).unsqueeze(1),
    }


def _with_input_bias(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    product = found["b_dec"].double() @ found["W_enc"].double()
    if "b_gate" not in found:
        return {"b_enc": (found["b_enc"] + product).float()}
    magnitude = product * found["r_mag"].double().exp()
    return {"b_gate": (found["b_gate"] + product).float(), "b_mag": (found["b_mag"] + magnitude).float()}
