"""The CUDA step on a GPU: at a real size, without waiting, and the same bits each time."""

import copy

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.conftest import DEVICE
from train_sae.config import Architecture
from train_sae.state import TrainState, initial_state
from train_sae.step import StepSettings, reference_step, take_step, takes_kernels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu", reason="needs a CUDA device")]

D_IN, D_SAE, K, N_TOKENS = 768, 8192, 32, 2048
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")


def make_state(arch: Architecture) -> TrainState:
    """A state in which every tenth latent is dead."""
    state = initial_state(torch.zeros(D_IN, device=DEVICE), D_SAE, 0, arch)
    with torch.no_grad():
        state.weights.b_enc[::10] = -10.0
    state.tokens_since_fired[::10] = 1_000_000
    return state


def make_settings(arch: Architecture, precision: torch.dtype) -> StepSettings:
    return StepSettings(arch=arch, k=K, dead_tokens=1_000_000, aux_k=D_IN // 2, precision=precision)


def batches(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(N_TOKENS, D_IN, generator=generator).to(DEVICE) for _ in range(n)]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_steps_agree_with_the_reference(arch: Architecture, precision: torch.dtype) -> None:
    settings = make_settings(arch, precision)
    ours = make_state(arch)
    theirs = copy.deepcopy(ours)
    assert takes_kernels(settings, ours.weights.enc.device, ours.weights.enc.dtype)
    # In bfloat16 many pre-activations are equal, so that after a step one last bit decides between latents.
    for x in batches(1 if precision == torch.bfloat16 else 3):
        found, expected = take_step(ours, x, settings, 1e-4), reference_step(theirs, x, settings, 1e-4)
        for name in ("mse", "variance", "aux", "l0", "n_dead", "threshold"):
            torch.testing.assert_close(
                getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4, check_dtype=False, msg=name
            )
    for name in theirs.trained:
        gradients = (s.optimizer.state[s.trained[name]]["exp_avg"] for s in (ours, theirs))
        mine, other = (gradient.double() for gradient in gradients)
        assert float((mine - other).norm() / other.norm()) < 0.02, name
    unlike = int((ours.tokens_since_fired != theirs.tokens_since_fired).sum())
    assert unlike < D_SAE // 100, "a near tie may be decided otherwise after a step, many may not"


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_waits_for_the_device(arch: Architecture) -> None:
    settings, state = make_settings(arch, torch.bfloat16), make_state(arch)
    data = batches(2)
    for x in data:  # the kernels are compiled and the dead latents are counted
        take_step(state, x, settings, 1e-4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x in data:
            take_step(state, x, settings, 1e-4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 4


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_same_steps_give_the_same_bits(arch: Architecture) -> None:
    settings, data, states = make_settings(arch, torch.bfloat16), batches(3), []
    for _ in range(2):
        state = make_state(arch)
        for x in data:
            take_step(state, x, settings, 1e-4)
        states.append(state.tensors())
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name
