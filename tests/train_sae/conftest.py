"""Trained SAEs and stores small enough to be made on the spot."""

from typing import get_args

import pytest
import torch

from train_sae.batches.normalisation import Normalisation
from train_sae.config import Architecture
from train_sae.lens.export import to_sae
from train_sae.sae import Sae
from train_sae.step.architectures import Weights


def random_weights(arch: Architecture, d_in: int = 12, d_sae: int = 40) -> Weights:
    """Random weights of an architecture, the decoder directions of unit norm."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    dec, enc, b_enc, b_dec = draw(d_sae, d_in), draw(d_sae, d_in), 0.1 * draw(d_sae), draw(d_in)
    dec /= dec.norm(dim=1, keepdim=True)
    return Weights(
        enc=dec if arch == "matching_pursuit" else enc,
        dec=dec,
        b_enc=b_enc,
        b_dec=b_dec,
        threshold=draw(d_sae).abs() if arch == "jumprelu" else None,
        b_mag=0.1 * draw(d_sae) if arch == "gated" else None,
        r_mag=0.1 * draw(d_sae) if arch == "gated" else None,
    )


def random_sae(arch: Architecture, d_in: int = 12, d_sae: int = 40, k: int = 4) -> Sae:
    """An SAE with random weights, exported as the trainer does it."""
    weights = random_weights(arch, d_in, d_sae)
    metadata = {"model_name": "a-model", "hook_name": "resid/3", "store_fingerprint": "abc", "model_fingerprint": "def"}
    normalisation = Normalisation(0.5, torch.zeros(d_in, dtype=torch.float64))
    return to_sae(weights, arch=arch, k=k, normalisation=normalisation, threshold=2.0, metadata=metadata)


@pytest.fixture(params=["topk", "batchtopk"])
def arch(request: pytest.FixtureRequest) -> Architecture:
    """Two architectures in turn."""
    return request.param


@pytest.fixture(params=get_args(Architecture))
def sae(request: pytest.FixtureRequest) -> Sae:
    """A random SAE of each architecture in turn."""
    return random_sae(request.param)
