"""Loading a VLM: its family, its device, its weights, and the check that it is what its family should be."""

from collections.abc import Sequence
from typing import Any, cast

from collect.artefact.json_file import read_json
from collect.config import AttnImplementation, Dtype
from collect.errors import UserError
from collect.plan.families import FAMILIES
from collect.process.device import resolve_device
from collect.vlm.check import check_prefix
from collect.vlm.families.registry import family_class
from collect.vlm.files import Quantization, fingerprint, load_weights, resolve_model, usable, whole_config
from collect.vlm.sites import parse_site
from collect.vlm.video_vlm import VideoVlm

SPREAD = "spread"
"""As a device, stands for all devices."""


def require_sites(model: str, sites: Sequence[str]) -> None:
    """Check the names of sites against a checkpoint's configuration, long before its weights are loaded.

    What the configuration does not tell is checked once the model is loaded.

    Args:
        model: as for `load_vlm`.
        sites: names of hook sites.

    Raises:
        UserError: there is no such model, or it has no such site.
    """
    folder, model_type = resolve_model(model)
    content: object = read_json(folder / "config.json", "fetch the model again")
    if model_type not in FAMILIES or not isinstance(content, dict):
        return  # a family of another package may have a configuration of its own
    try:
        text = whole_config(model, cast("dict[str, Any]", content)).get("text_config")
    except UserError:
        return
    n_layers = cast("dict[str, Any]", text).get("num_hidden_layers") if isinstance(text, dict) else None
    if isinstance(n_layers, int):
        for site in sites:
            if not site.startswith("vision/"):
                parse_site(site, n_layers)


def load_vlm(
    model: str,
    *,
    dtype: Dtype = "auto",
    device: str = "auto",
    attn_implementation: AttnImplementation = "sdpa",
    quantization: Quantization = "none",
) -> VideoVlm:
    """Load a video VLM from a folder or the hub; code from the checkpoint is never run, pickles are never read.

    The checkpoint is then compared with its own forward pass on two small frames (`collect.vlm.check`).

    Args:
        model: a folder in transformers' layout, or a hub id such as `facebook/Perception-LM-1B`.
        dtype: of the weights; `auto` takes the checkpoint's own.
        device: such as `cpu` or `cuda:1`; `auto` takes a GPU if there is one; `spread` divides the layers among all
            GPUs and the host's memory, using accelerate (transformers' `device_map="auto"`).
        attn_implementation: transformers' attention kernel.
        quantization: load the weights in 8 or 4 bits, with bitsandbytes. This is untested. Activations are those of the
            quantised model, so collect and steer with the same setting.

    Raises:
        UserError: there is no such model or device, its family is not supported, or the check fails.
    """
    folder, model_type = resolve_model(model)
    family = family_class(model, model_type)
    target = None if device == SPREAD else resolve_device(device)
    placement = "auto" if target is None else target if quantization != "none" else None
    network, processor = load_weights(
        folder,
        model,
        dtype=dtype,
        attn_implementation=attn_implementation,
        device_map=placement,
        quantization=quantization,
    )
    if placement is None:
        network = network.to(target)  # transformers would need accelerate to place the weights itself
    with usable(model):
        vlm = VideoVlm(family(model, network, processor), fingerprint=fingerprint(folder))
        check_prefix(vlm)
    return vlm
