"""Loading a VLM: its family, its device, its weights, and the check that it is what its family should be."""

from collect.config import AttnImplementation, Dtype
from collect.process.device import resolve_device
from collect.vlm.check import check_prefix
from collect.vlm.families.registry import family_class
from collect.vlm.files import Quantization, fingerprint, load_weights, resolve_model, usable
from collect.vlm.video_vlm import VideoVlm

SPREAD = "spread"
"""As a device, stands for all devices."""


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
