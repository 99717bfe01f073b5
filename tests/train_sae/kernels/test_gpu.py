"""The CUDA step on a GPU: at a real size, without waiting, and the same bits each time."""

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.train_sae.kernels.conftest import DEVICE
from train_sae.config import Architecture
from train_sae.step.fastest import StepSettings, reference_step, take_step, takes_kernels
from train_sae.step.state import TrainState, initial_state

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
    # In bfloat16 residuals, directions and gradients are rounded to 8 bits.
    for name in theirs.trained:
        gradients = (s.optimizer.state[s.trained[name]]["exp_avg"] for s in (ours, theirs))
        mine, other = (gradient.double() for gradient in gradients)
        assert float((mine - other).norm() / other.norm()) < 0.02, name
    unlike = int((ours.tokens_since_fired != theirs.tokens_since_fired).sum())
    assert unlike < D_SAE // 100, "a near tie may be decided otherwise after a step, many may not"


def set_sync_debug_mode(mode: str) -> None:
    """Torch's own function, which warns at each call that it is a prototype."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode(mode)


@pytest.fixture
def _waiting_is_an_error() -> Iterator[None]:
    """From `set_sync_debug_mode("error")` on; whatever happens, later tests may wait again."""
    yield
    set_sync_debug_mode("default")


@pytest.mark.usefixtures("_waiting_is_an_error")
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_waits_for_the_device(arch: Architecture) -> None:
    settings, state = make_settings(arch, torch.bfloat16), make_state(arch)
    data = batches(3)
    for x in data:  # the kernels are compiled, the dead latents are counted and the step is recorded
        take_step(state, x, settings, 1e-4)
    set_sync_debug_mode("error")
    for x in data:
        take_step(state, x, settings, 1e-4)
    assert state.step == 6


@pytest.mark.usefixtures("_waiting_is_an_error")
def test_a_wait_would_be_an_error() -> None:
    number = torch.ones((), device=DEVICE)
    set_sync_debug_mode("error")
    with pytest.raises(RuntimeError, match="synchroniz"):
        float(number)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_recorded_steps_are_the_steps(arch: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    from train_sae.kernels.recording import Recordings

    settings, data, states, told = make_settings(arch, torch.bfloat16), batches(5), [], []
    for is_recorded in (True, False):
        if not is_recorded:
            monkeypatch.setattr(Recordings, "take", lambda _self, _kind, x, step: step(x))
        state = make_state(arch)
        # The rate changes, and latents come alive: what a recording must not have kept from its first time.
        told.append([take_step(state, x, settings, 1e-3 / (1 + i)) for i, x in enumerate(data)])
        states.append(state.tensors())
    for name, tensor in states[0].items():
        assert torch.equal(states[1][name], tensor), name
    for recorded, plain in zip(*told, strict=True):
        for name, value in recorded._asdict().items():
            assert float(value) == float(getattr(plain, name)), name


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
