"""SAEs made and saved by SAELens itself, of every architecture that it can load, with weights and norms at random."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

D_IN, D_SAE = 12, 40

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the libraries that sae_lens imports warn about themselves
    import sae_lens
    from sae_lens.registry import SAE_CLASS_REGISTRY

ARCHITECTURES: tuple[str, ...] = tuple(sorted(SAE_CLASS_REGISTRY))
TRANSCODERS = tuple(name for name in ARCHITECTURES if name.endswith("transcoder"))
SPECIAL: Mapping[str, dict[str, Any]] = {
    "topk": {"k": 5},
    "abstopk": {"k": 5},
    "matching_pursuit": {"max_iterations": 6, "residual_threshold": 0.5},
    "temporal": {"n_heads": 2, "bottleneck_factor": 4, "kval_topk": 6},
    **{name: {"d_out": 7, "apply_b_dec_to_input": False} for name in TRANSCODERS},
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save_lens_sae(
    folder: Path, architecture: str, *, d_in: int = D_IN, d_sae: int = D_SAE, dtype: str = "float32", **settings: Any
) -> Path:
    """Save an SAE by SAELens, all weights drawn at random, so that decoder norms differ."""
    sae_class, config_class = SAE_CLASS_REGISTRY[architecture]
    known = {"d_in": d_in, "d_sae": d_sae, "dtype": dtype, **SPECIAL.get(architecture, {}), **settings}
    metadata = known.pop("metadata", {"model_name": "a-model", "hook_name": "resid/2"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config: Any = config_class(**known)
        for name, value in metadata.items():
            setattr(config.metadata, name, value)
        sae: Any = sae_class(config)
    with torch.no_grad():
        for number, (name, tensor) in enumerate(sorted(sae.named_parameters())):
            size = 0.3 if name in ("r_mag", "b_enc", "b_mag", "b_gate") or name.startswith("attn_layers") else 1.0
            values = size * draw(*tensor.shape, seed=number)
            if name == "W_dec" and architecture != "matching_pursuit":
                values *= torch.linspace(0.2, 3.0, len(values)).unsqueeze(1)
            elif name == "W_dec":
                values *= 0.7 / values.norm(dim=1, keepdim=True)
            tensor.copy_(values.abs() if name == "threshold" else values)
    sae.save_model(folder)
    return folder


def lens_outputs(folder: Path, x: Tensor, dtype: str | None = None) -> tuple[Tensor, Tensor]:
    """What SAELens makes of residuals: latent activations and reconstruction."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        sae: Any = sae_lens.SAE.load_from_disk(folder, dtype=dtype)
        shaped = x.unsqueeze(0) if sae.cfg.architecture() == "temporal" else x
        return sae.encode(shaped).reshape(len(x), -1), sae(shaped).reshape(len(x), -1)


def edit_cfg(folder: Path, *drop: str, **changes: Any) -> None:
    content = json.loads((folder / "cfg.json").read_text())
    kept = {name: value for name, value in content.items() if name not in drop}
    (folder / "cfg.json").write_text(json.dumps(kept | changes))


def edit_weights(folder: Path, **changes: Tensor | None) -> None:
    path = folder / "sae_weights.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
