"""From trained weights to a folder that SAELens loads: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

TopK is exported as `topk`; BatchTopK as `jumprelu` with one threshold for all latents, as SAELens does. Only these
registered architectures are written, since a folder of another one needs a plugin to load.

Source: sae_lens 6.54, `saes/sae.py` (`load_from_disk`), `saes/batchtopk_sae.py`, `training/sae_trainer.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from collect.artefact import write_atomic
from train_sae.architectures import Weights
from train_sae.config import Architecture
from train_sae.normalize import fold
from train_sae.sae import CFG_NAME, WEIGHTS_NAME, Sae
from train_sae.tensor_file import save_tensors

SPARSITY_NAME = "sparsity.safetensors"
SAE_LENS_FORMAT = "6.54.12"
"""Version of sae_lens whose format is written; without it SAELens takes the folder for an old one and drops all of
our metadata."""
_SPARSITY_FLOOR = 1e-10


def to_sae(
    weights: Weights,
    *,
    arch: Architecture,
    k: int,
    scale: float,
    threshold: float,
    metadata: Mapping[str, Any],
) -> Sae:
    """Fold the normalisation into trained weights and turn them into SAELens's orientation, in float32 on the CPU.

    Args:
        weights: weights in units of the normalised input.
        arch: architecture that they were trained with.
        k: active latents a token.
        scale: the normalised input is so many times the raw one.
        threshold: smallest activation that is selected on average; used by batchtopk only.
        metadata: what is known about the SAE, for `cfg.json`.
    """
    folded = fold(weights, scale)
    enc, dec, b_enc, b_dec = (tensor.detach().float().cpu() for tensor in folded.tensors().values())
    return Sae(
        architecture="topk" if arch == "topk" else "jumprelu",
        k=k,
        W_enc=enc.T.contiguous(),
        W_dec=dec,
        b_enc=b_enc,
        b_dec=b_dec,
        threshold=torch.full_like(b_enc, 0.0 if arch == "topk" else threshold),
        metadata={
            **metadata,
            "k": k,
            "training_architecture": arch,
            "normalization": {"kind": "expected_norm", "scale": scale, "folded": True},
        },
    )


def save_sae(folder: Path, sae: Sae, firing_rate: Float[Tensor, " d_sae"]) -> None:
    """Write an SAE as a SAELens folder; `cfg.json` comes last, so that a folder with it is complete.

    Args:
        folder: the SAE's folder, made if there is none; other files in it are left alone.
        sae: what to write.
        firing_rate: share of tokens at which each latent is active; written as log10, as SAELens does.
    """
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_enc": sae.b_enc, "b_dec": sae.b_dec}
    if sae.architecture == "jumprelu":
        tensors["threshold"] = sae.threshold
    save_tensors(folder / WEIGHTS_NAME, tensors)
    save_tensors(folder / SPARSITY_NAME, {"sparsity": (firing_rate.double() + _SPARSITY_FLOOR).log10().float()})
    cfg: dict[str, Any] = {
        "architecture": sae.architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": SAE_LENS_FORMAT,
            "sae_lens_training_version": None,
            **sae.metadata,
        },
    }
    if sae.architecture == "topk":
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    write_atomic(folder / CFG_NAME, json.dumps(cfg, indent=2) + "\n")
