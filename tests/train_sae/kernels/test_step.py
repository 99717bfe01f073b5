"""The CUDA step against the reference: on a GPU where there is one, else in Triton's interpreter."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train_sae.kernels.conftest import DEVICE
from train_sae.config import Architecture
from train_sae.kernels import auxk, backward, decode
from train_sae.kernels.dead import DeadBound
from train_sae.kernels.step import kernel_step
from train_sae.options import SaeOptions
from train_sae.step.architectures import Weights, trained_names
from train_sae.step.fastest import StepSettings, StepStats, reference_step, sparse_step
from train_sae.step.state import TrainState, initial_state

IS_GPU = DEVICE == "cuda"
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")


def make_state(
    d_in: int,
    d_sae: int,
    arch: Architecture,
    seed: int = 0,
    numbers: Literal["real", "whole"] = "real",
    averaged: bool = False,
) -> TrainState:
    """Random weights; whole ones make every pre-activation exact, so that ties are ties for both steps.

    Adam's epsilon is large, since else a gradient of pure rounding would move a weight as far as any other.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if numbers == "whole":
            return torch.randint(-1, 2, shape, generator=generator).float().to(DEVICE)
        return torch.randn(shape, generator=generator).to(DEVICE)

    dec = draw(d_sae, d_in)
    dec[:, 0] += 2.0 * (dec == 0).all(dim=1)  # a direction has a length
    weights = Weights(enc=draw(d_sae, d_in), dec=dec, b_enc=draw(d_sae), b_dec=draw(d_in))
    state = TrainState(weights, trained_names(arch, weights), averaged)
    state.optimizer.param_groups[0]["eps"] = 1.0
    return state


def assert_close(found: Tensor, expected: Tensor, name: str, size: float = 1.0) -> None:
    """Equal but for float32's rounding of numbers of a size."""
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-6 * max(1.0, size), check_dtype=False, msg=lambda text: f"{name}: {text}"
    )


def assert_same(found: TrainState, expected: TrainState) -> None:
    """Equal in weights, moments, which tell the gradients, averages and counters."""
    theirs, ours = expected.tensors(), found.tensors()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # What is left of a gradient after its projection has the rounding errors of what was there before it.
        kind = name.split(".")[-1]
        size = max(float(other.abs().max()) for name, other in theirs.items() if name.split(".")[-1] == kind)
        assert_close(ours[name], tensor, name, 10 * size)
    assert torch.equal(found.tokens_since_fired, expected.tokens_since_fired)
    assert found.step == expected.step


def assert_equal(found: TrainState, expected: TrainState) -> None:
    """Equal in every bit."""
    for name, tensor in expected.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name


# Making a failing example smaller takes the interpreter minutes.
@settings(max_examples=300 if IS_GPU else 40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(data=st.data())
def test_kernel_step_equals_the_reference_in_loss_gradients_and_updates(data: st.DataObject) -> None:
    d_in, d_sae, n_tokens = (data.draw(st.integers(1, top), label=name) for name, top in
                             (("d_in", 20), ("d_sae", 12), ("n_tokens", 5)))  # fmt: skip
    numbers: Literal["real", "whole"] = data.draw(st.sampled_from(["real", "whole"]), label="numbers")
    dead = data.draw(st.lists(st.booleans(), min_size=d_sae, max_size=d_sae), label="dead")
    options = SaeOptions(
        matryoshka_widths=tuple(sorted(data.draw(st.sets(st.integers(1, d_sae)), label="widths"))),
        matryoshka_samples=data.draw(st.sampled_from([0, 0, 3]), label="sampled widths"),
        clip_grad_norm=data.draw(st.sampled_from([None, 0.1]), label="clip"),
        ema_decay=data.draw(st.sampled_from([None, 0.9]), label="average"),
        adam_beta1=data.draw(st.sampled_from([0.9, 0.0]), label="mean of the gradients"),
        adam_beta2=data.draw(st.sampled_from([0.999, 0.5]), label="mean of their squares"),
        aux_loss_coefficient=data.draw(st.sampled_from([1.0, 0.25]), label="weight of AuxK"),
    )
    arch = data.draw(st.sampled_from(ARCHITECTURES), label="arch")
    config = StepSettings(
        arch=arch,
        k=data.draw(st.integers(1, d_sae), label="k"),
        dead_tokens=data.draw(st.sampled_from([1000, 3]), label="tokens until death"),
        aux_k=data.draw(st.integers(1, d_sae), label="aux_k"),
        options=options,
    )
    reference = make_state(
        d_in, d_sae, arch, data.draw(st.integers(0, 99), label="seed"), numbers, options.ema_decay is not None
    )
    with torch.no_grad():
        reference.weights.b_enc.add_(data.draw(st.sampled_from([0.0, -20.0]), label="shift of b_enc, empties rows"))
    reference.tokens_since_fired.copy_(torch.tensor(dead) * config.dead_tokens)
    kernels = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(0)
    for step in range(2):  # the second step sees Adam's moments and counters
        if numbers == "whole" and step:
            break  # after an update nothing is whole any more
        x = torch.randint(-3, 4, (n_tokens, d_in), generator=generator).float().to(DEVICE)
        expected, found = reference_step(reference, x, config, 1e-2), kernel_step(kernels, x, config, 1e-2)
        for name in StepStats._fields:
            assert_close(getattr(found, name), getattr(expected, name), name)
        assert_same(kernels, reference)
        if options.clip_grad_norm is None:
            assert kernels.weights.enc.grad is None
            assert kernels.weights.dec.grad is None


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernel_step_equals_the_reference_over_many_steps(arch: Architecture) -> None:
    config = StepSettings(arch=arch, k=1, dead_tokens=40, aux_k=3)  # the count of two steps ago bounds the dead
    reference = make_state(6, 16, arch)
    kernels = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(1)
    deaths = 0
    for _ in range(12):
        x = torch.randn(5, 6, generator=generator).to(DEVICE)
        deaths += int(reference_step(reference, x, config, 3e-3).n_dead)
        kernel_step(kernels, x, config, 3e-3)
    assert_same(kernels, reference)
    assert deaths > 0


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_bfloat16_encoding_selects_the_same_and_keeps_the_weights_exact(arch: Architecture) -> None:
    config = StepSettings(arch=arch, k=4, dead_tokens=1000, aux_k=2, precision=torch.bfloat16)
    reference = make_state(16, 64, arch)
    kernels = copy.deepcopy(reference)
    x = torch.randn(12, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    expected, found = reference_step(reference, x, config, 1e-3), kernel_step(kernels, x, config, 1e-3)
    # Directions, residuals and gradients are bfloat16 too: 8 bits, which the interpreter truncates and a GPU rounds.
    tolerance = 0.01 if IS_GPU else 0.03
    torch.testing.assert_close(found.mse, expected.mse, rtol=tolerance, atol=0.0)
    unlike = int((kernels.tokens_since_fired != reference.tokens_since_fired).sum())
    assert unlike <= (0 if IS_GPU else 2), "a truncated input may decide a near tie otherwise"
    for name in reference.trained:
        ours, theirs = (s.optimizer.state[s.trained[name]]["exp_avg"] for s in (kernels, reference))
        assert float((ours - theirs).norm() / theirs.norm()) < (tolerance if IS_GPU else 0.1), name


@pytest.mark.parametrize("arch", ["topk", "matryoshka_batchtopk"])
def test_a_state_rebuilt_from_its_tensors_goes_on_bit_for_bit(arch: Architecture) -> None:
    # The interpreter truncates to bfloat16, where a GPU, as torch does, rounds to the nearest.
    precision = torch.bfloat16 if IS_GPU else torch.float32
    options = SaeOptions(ema_decay=0.9)
    config = StepSettings(arch=arch, k=2, dead_tokens=40, aux_k=2, precision=precision, options=options)
    state = make_state(5, 12, arch, averaged=True)
    state.tokens_since_fired[:5] = 40
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, 5, generator=generator).to(DEVICE) for _ in range(4)]
    for x in batches[:2]:
        kernel_step(state, x, config, 1e-2)
    other = TrainState.from_tensors({name: tensor.clone() for name, tensor in state.tensors().items()}, state.step)
    other.optimizer.param_groups[0]["eps"] = 1.0
    for x in batches[2:]:
        kernel_step(state, x, config, 1e-2)
        kernel_step(other, x, config, 1e-2)
    assert_equal(other, state)


def test_other_steps_in_between_are_noticed() -> None:
    config = StepSettings(arch="topk", k=2, dead_tokens=1000, aux_k=2, precision=torch.bfloat16)
    state = make_state(5, 12, "topk")
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    kernel_step(state, x, config, 0.5)
    sparse_step(state, x, config, 0.5)
    fresh = TrainState.from_tensors(state.tensors(), state.step)
    fresh.optimizer.param_groups[0]["eps"] = 1.0
    kernel_step(state, x, config, 0.5)
    kernel_step(fresh, x, config, 0.5)
    assert_equal(fresh, state)


@pytest.mark.parametrize("arch", ["topk", "frozen_decoder"])
def test_the_padding_of_the_dead_list_changes_no_bit(arch: Architecture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxk, "_CHUNK", 4)
    config = StepSettings(arch=arch, k=2, dead_tokens=1000, aux_k=2)
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    states, losses = [], []
    for bound in (6, 9, 20):
        monkeypatch.setattr(DeadBound, "at", lambda *_, bound=bound: bound)
        state = make_state(5, 20, arch)
        state.tokens_since_fired[3:9] = 1000  # six are dead
        losses.append(float(kernel_step(state, x, config, 1e-2).aux))
        states.append(state)
    assert losses[0] == losses[1] == losses[2] > 0
    assert_equal(states[1], states[0])
    assert_equal(states[2], states[0])


@pytest.mark.parametrize("clip", [None, 1e9])
def test_small_tiles_and_few_programs_take_the_same_step(clip: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StepSettings(
        arch="matryoshka_batchtopk", k=3, dead_tokens=1000, aux_k=2, options=SaeOptions(clip_grad_norm=clip)
    )
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    states = [make_state(5, 12, config.arch) for _ in range(2)]
    kernel_step(states[0], x, config, 1e-2)
    monkeypatch.setattr(decode, "_UNALIGNED_TILE", 2)  # a token has 5 numbers
    monkeypatch.setattr(backward, "_TILE", 2)
    monkeypatch.setattr(backward, "_COLUMNS", 16)
    monkeypatch.setattr(backward, "_MAX_PROGRAMS", 3)
    kernel_step(states[1], x, config, 1e-2)
    assert_same(states[1], states[0])


class Waiting(TorchDispatchMode):
    """Counts the operators that would wait for a device, or whose results have as many entries as the data say."""

    OPERATORS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "repeat_interleave", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        if masked or name in self.OPERATORS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def steps_with_dead_latents(arch: Architecture, n_dead: int, clip: float | None) -> Callable[[], StepStats]:
    n_tokens, d_in, d_sae, k = 4, 8, 24, 2
    state = initial_state(torch.zeros(d_in, device=DEVICE), d_sae, 0, arch)
    with torch.no_grad():
        state.weights.b_enc[:n_dead] = -100.0
    state.tokens_since_fired[:n_dead] = 10_000
    config = StepSettings(arch=arch, k=k, dead_tokens=10_000, aux_k=4, options=SaeOptions(clip_grad_norm=clip))
    x = torch.randn(n_tokens, d_in, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    return lambda: kernel_step(state, x, config, 1e-3)


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("n_dead", [0, 10])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_reads_no_number_from_the_device(arch: Architecture, n_dead: int, clip: float | None) -> None:
    step = steps_with_dead_latents(arch, n_dead, clip)
    assert float(step().n_dead) == n_dead
    with Waiting() as watch:
        step()
    assert watch.found == []


def test_a_wait_would_be_seen() -> None:
    with Waiting() as watch:
        numbers = torch.arange(4)
        float(numbers[1])
        numbers[numbers > 2].sum()
        (numbers > 2).nonzero()
    assert watch.found == ["_local_scalar_dense", "index", "nonzero"]


def test_a_copy_of_a_state_remembers_nothing_of_its_own() -> None:
    config = StepSettings(arch="topk", k=2, dead_tokens=1000, aux_k=2, precision=torch.bfloat16)
    state = make_state(5, 12, "topk")
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    kernel_step(state, x, config, 1e-2)
    copied = copy.deepcopy(state)
    with torch.no_grad():
        copied.weights.enc.mul_(2.0)
    expected = reference_step(copy.deepcopy(copied), x, config, 1e-2)
    torch.testing.assert_close(kernel_step(copied, x, config, 1e-2).mse, expected.mse, rtol=0.03, atol=0.0)
