"""From trained weights to a folder that SAELens loads: `cfg.json`, `sae_weights.safetensors`, `sparsity.safetensors`.

BatchTopK, Matryoshka and the frozen-decoder baseline are exported as `jumprelu` with one threshold for all latents, as
SAELens does; the others under their own names. Only architectures that SAELens registers are written, since a folder
with another one needs a plugin to load.

Source: sae_lens 6.54, `saes/sae.py` (`load_from_disk`), `saes/batchtopk_sae.py`, `training/sae_trainer.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from collect.artefact.folder import write_atomic
from train_sae.batches.normalisation import Normalisation, fold
from train_sae.config import Architecture
from train_sae.lens.config import CFG_NAME
from train_sae.lens.folding import WEIGHTS_NAME
from train_sae.lens.module import LENS_FORMAT
from train_sae.options import SaeOptions
from train_sae.sae import InferenceArchitecture, Sae
from train_sae.step.architectures import BATCH_TOPK_ARCHITECTURES, Weights
from train_sae.tensor_file import save_tensors

SPARSITY_NAME = "sparsity.safetensors"
_SPARSITY_FLOOR = 1e-10


def to_sae(
    weights: Weights,
    *,
    arch: Architecture,
    k: int,
    normalisation: Normalisation,
    threshold: float,
    metadata: Mapping[str, Any],
    options: SaeOptions | None = None,
) -> Sae:
    """Fold the normalisation into trained weights and turn them into SAELens's orientation, in float32 on the CPU.

    Args:
        weights: weights in units of the normalised input; `TrainState.exported`.
        arch: architecture that they were trained with.
        k: active latents per token.
        normalisation: what the trainer did to its input.
        threshold: smallest activation that is selected on average; used by the BatchTopK family only.
        metadata: what is known about the SAE, for `cfg.json`.
        options: settings of the architecture.
    """
    folded = fold(weights, normalisation)
    enc, dec, b_enc, b_dec = (tensor.float() for tensor in (folded.enc, folded.dec, folded.b_enc, folded.b_dec))
    options, residual_threshold = options or SaeOptions(), 0.0
    thresholds, b_gate, r_mag = torch.zeros_like(b_enc), None, None
    if arch in BATCH_TOPK_ARCHITECTURES:
        thresholds = torch.full_like(b_enc, threshold)
    elif folded.threshold is not None:
        thresholds = folded.threshold.float()
    elif folded.b_mag is not None and folded.r_mag is not None:
        b_gate, r_mag = b_enc, folded.r_mag.float()
        b_enc = folded.b_mag.float()
    if arch == "matching_pursuit":
        residual_threshold = options.residual_threshold / normalisation.scale
    return Sae(
        architecture=_inference_architecture(arch),
        k=k,
        W_enc=enc.T.contiguous(),
        W_dec=dec,
        b_enc=b_enc,
        b_dec=b_dec,
        threshold=thresholds,
        b_gate=b_gate,
        r_mag=r_mag,
        residual_threshold=residual_threshold,
        metadata={
            **metadata,
            "k": k,
            "training_architecture": arch,
            "normalization": {"kind": normalisation.kind, "scale": normalisation.scale, "folded": True},
        },
    )


def _inference_architecture(arch: Architecture) -> InferenceArchitecture:
    match arch:
        case "topk" | "jumprelu" | "gated" | "standard" | "matching_pursuit":
            return arch
        case "batchtopk" | "matryoshka_batchtopk" | "frozen_decoder":
            return "jumprelu"


def save_sae(folder: Path, sae: Sae, firing_rate: Float[Tensor, " d_sae"]) -> None:
    """Write an SAE as a SAELens folder; `cfg.json` comes last, so that a folder with it is complete.

    Args:
        folder: the SAE's folder, made if there is none; other files in it are left alone.
        sae: what to write.
        firing_rate: share of tokens at which each latent is active; written as log10, as SAELens does.
    """
    save_tensors(folder / WEIGHTS_NAME, sae.stored_tensors())
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
            "sae_lens_version": LENS_FORMAT,
            "sae_lens_training_version": None,
            **sae.metadata,
        },
    }
    if sae.architecture == "topk":
        cfg |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    if sae.architecture == "matching_pursuit":
        pursuit = {"residual_threshold": sae.residual_threshold, "max_iterations": sae.k}
        cfg |= {**pursuit, "stop_on_duplicate_support": True}
    write_atomic(folder / CFG_NAME, json.dumps(cfg, indent=2) + "\n")
