"""Weights of an SAE in training: which tensors each architecture has, how they begin, which of them are trained.

Here both matrices are held as `[d_sae, d_in]` rows, so that sparse work reads and writes whole rows; `export` turns the
encoder into SAELens's orientation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from train_sae.config import Architecture
from train_sae.options import SaeOptions

BATCH_TOPK_ARCHITECTURES: frozenset[Architecture] = frozenset(("batchtopk", "matryoshka_batchtopk", "frozen_decoder"))
"""Architectures that select k latents per token on average over the batch, and are exported with one threshold for
all."""


@dataclass(frozen=True)
class Weights:
    """The parameters, in units of the normalised input."""

    enc: Float[Tensor, "d_sae d_in"]
    """Encoder directions: row i is W_enc[:, i]. In matching pursuit this is `dec` itself."""
    dec: Float[Tensor, "d_sae d_in"]
    """Decoder directions, of unit norm: row i is W_dec[i]."""
    b_enc: Float[Tensor, " d_sae"]
    """Encoder bias; `b_gate` in a gated SAE, unused in matching pursuit."""
    b_dec: Float[Tensor, " d_in"]
    threshold: Float[Tensor, " d_sae"] | None = None
    """Of jumprelu: a latent is active where its pre-activation is above this."""
    b_mag: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: bias of the magnitudes."""
    r_mag: Float[Tensor, " d_sae"] | None = None
    """Of a gated SAE: logarithm of the magnitudes' scale."""

    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name, each once."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.enc is self.dec:
            del found["enc"]
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Weights":
        """The weights that `tensors` gave; other names are ignored.

        Raises:
            KeyError: a parameter is missing.
        """
        optional = {name: tensors[name] for name in ("threshold", "b_mag", "r_mag") if name in tensors}
        dec = tensors["dec"]
        return cls(tensors.get("enc", dec), dec, tensors["b_enc"], tensors["b_dec"], **optional)


def initial_weights(
    b_dec: Float[Tensor, " d_in"],
    d_sae: int,
    seed: int,
    arch: Architecture = "topk",
    options: SaeOptions | None = None,
) -> Weights:
    """Random unit decoder directions, the encoder tied to them, no encoder bias.

    Args:
        b_dec: the mean of the normalised input, which makes a good decoder bias from the start.
        d_sae: number of latents.
        seed: seed of the directions; drawn on the CPU, so that every device starts from the same weights.
        arch: architecture, which decides which other tensors there are.
        options: settings of the architecture.

    Source: Gao et al. 2024 ("Scaling and evaluating sparse autoencoders"), appendix A.1.
    """
    options = options or SaeOptions()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(d_sae, b_dec.shape[0], generator=generator, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    dec = directions.to(b_dec)
    zeros = b_dec.new_zeros(d_sae)
    return Weights(
        enc=dec if arch == "matching_pursuit" else dec.clone(),
        dec=dec,
        b_enc=zeros.clone(),
        b_dec=b_dec.clone(),
        threshold=torch.full_like(zeros, options.jumprelu_init_threshold) if arch == "jumprelu" else None,
        b_mag=zeros.clone() if arch == "gated" else None,
        r_mag=zeros.clone() if arch == "gated" else None,
    )


def trained_names(arch: Architecture, weights: Weights) -> tuple[str, ...]:
    """Names of the tensors that the training changes."""
    fixed = {"frozen_decoder": "dec", "matching_pursuit": "b_enc"}.get(arch)
    return tuple(name for name in weights.tensors() if name != fixed)
