"""A tiny training of each architecture, to the numbers that it gave when it was known to be right.

A change that claims not to change numbers leaves these alone; one that does changes them, and says why.
"""

import pytest
import torch

from train_sae.config import Architecture
from train_sae.options import SaeOptions
from train_sae.step.fastest import take_step
from train_sae.step.schedule import learning_rate
from train_sae.step.settings import StepSettings
from train_sae.step.state import initial_state

N_STEPS = 60
GOLDEN: dict[Architecture, tuple[float, float]] = {
    "topk": (1.29764, 3.0),
    "batchtopk": (1.16491, 3.0),
    "matryoshka_batchtopk": (1.30261, 3.0),
    "jumprelu": (0.23059, 12.05),
    "gated": (0.14438, 15.20),
    "standard": (0.22908, 15.68),
    "matching_pursuit": (0.93405, 3.0),
    "frozen_decoder": (2.22699, 3.0),
}
"""Mean squared error and L0 of the last step."""


def final_mse_and_l0(arch: Architecture) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(24, 16, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    state = initial_state(torch.zeros(16), 48, 0, arch)
    options = SaeOptions(l1_coefficient=0.1, l0_coefficient=0.02, jumprelu_bandwidth=0.2)
    settings = StepSettings(arch=arch, k=3, dead_tokens=2000, aux_k=8, options=options)
    stats = None
    for step in range(N_STEPS):
        active = torch.rand(128, 24, generator=generator) < 0.1
        x = (active * (1 + torch.rand(128, 24, generator=generator))) @ directions
        stats = take_step(state, x, settings, learning_rate(step, N_STEPS, 1e-2))
    assert stats is not None
    return float(stats.mse), float(stats.l0)


@pytest.mark.parametrize("arch", GOLDEN)
def test_the_tiny_training_gives_its_golden_numbers(arch: Architecture) -> None:
    assert final_mse_and_l0(arch) == pytest.approx(GOLDEN[arch], rel=5e-3)
