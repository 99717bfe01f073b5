"""Trained SAEs and stores small enough to be made on the spot."""

import pytest
import torch

from train_sae.architectures import Weights
from train_sae.config import Architecture
from train_sae.export import to_sae
from train_sae.sae import Sae


def random_sae(arch: Architecture, d_in: int = 12, d_sae: int = 40, k: int = 4) -> Sae:
    """An SAE with random weights, exported as the trainer does it."""
    generator = torch.Generator().manual_seed(0)
    dec = torch.randn(d_sae, d_in, generator=generator)
    dec /= dec.norm(dim=1, keepdim=True)
    weights = Weights(
        enc=torch.randn(d_sae, d_in, generator=generator),
        dec=dec,
        b_enc=0.1 * torch.randn(d_sae, generator=generator),
        b_dec=torch.randn(d_in, generator=generator),
    )
    metadata = {"model_name": "a-model", "hook_name": "resid/3", "store_fingerprint": "abc", "model_fingerprint": "def"}
    return to_sae(weights, arch=arch, k=k, scale=0.5, threshold=2.0, metadata=metadata)


@pytest.fixture(params=["topk", "batchtopk"])
def arch(request: pytest.FixtureRequest) -> Architecture:
    """Each architecture in turn."""
    return request.param


@pytest.fixture
def sae(arch: Architecture) -> Sae:
    """A random SAE of each architecture in turn."""
    return random_sae(arch)
