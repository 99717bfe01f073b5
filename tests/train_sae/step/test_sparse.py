"""What the sparse step must not do: make a tensor of tokens × k × d_in, and wait for the device."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from train_sae.config import Architecture
from train_sae.processes.group import Group
from train_sae.step.fastest import StepSettings, sparse_step
from train_sae.step.selection import ActiveLatents
from train_sae.step.state import TrainState, initial_state

N_TOKENS, D_IN, D_SAE, K = 64, 64, 256, 16
GATHERED = N_TOKENS * K * D_IN
LARGEST_NEEDED = max(D_SAE * (D_IN + 8), N_TOKENS * D_SAE, 4 * N_TOKENS * D_IN)
"""The padded encoder, the pre-activations, the residuals of four Matryoshka prefixes."""
ARCHITECTURES: tuple[Architecture, ...] = ("topk", "batchtopk", "matryoshka_batchtopk", "frozen_decoder")


class Watch(TorchDispatchMode):
    """Remembers the largest result of an operator, and counts those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.largest, self.n_scalars, self.n_nonzero = 0, 0, 0
        self.is_paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.untyped_storage().nbytes() // leaf.element_size() for leaf in tree_leaves(result)
                 if isinstance(leaf, Tensor) and leaf.layout == torch.strided]  # fmt: skip
        self.largest = max([self.largest, *sizes])
        if not self.is_paused:
            self.n_scalars += func is torch.ops.aten._local_scalar_dense.default
            self.n_nonzero += func is torch.ops.aten.nonzero.default
        return result


class Unwatched(Group):
    """Selections on the CPU are numpy's and read numbers: the only part of a step that other devices do differently."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def _unwatched(self, select: Callable[[], ActiveLatents]) -> ActiveLatents:
        self._watch.is_paused = True
        try:
            return select()
        finally:
            self._watch.is_paused = False

    def select_topk(self, pre: Tensor, k: int) -> ActiveLatents:
        return self._unwatched(lambda: Group.select_topk(self, pre, k))

    def select_batch_topk(self, pre: Tensor, k: int, guess: Tensor | None = None) -> ActiveLatents:
        return self._unwatched(lambda: Group.select_batch_topk(self, pre, k, guess))


def step_of(arch: Architecture, watch: Watch, n_dead: int) -> Callable[[], object]:
    state: TrainState = initial_state(torch.zeros(D_IN), D_SAE, 0, arch)
    settings = StepSettings(arch=arch, k=K, dead_tokens=10_000, aux_k=D_IN // 2, group=Unwatched(watch))
    x = torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(0))

    def step() -> object:
        state.tokens_since_fired[:n_dead] = 10_000
        return sparse_step(state, x, settings, 1e-3)

    return step


@pytest.mark.parametrize("n_dead", [0, 100])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_tensor_holds_a_decoder_direction_for_each_active_latent(arch: Architecture, n_dead: int) -> None:
    watch = Watch()
    step = step_of(arch, watch, n_dead)
    with watch:
        step()
    assert 0 < watch.largest <= LARGEST_NEEDED < GATHERED


def test_such_a_tensor_would_be_seen() -> None:
    watch = Watch()
    with watch:
        torch.zeros(D_SAE, D_IN)[torch.zeros(N_TOKENS, K, dtype=torch.long)].sum()
    assert watch.largest == GATHERED


@pytest.mark.parametrize("n_dead", [0, 100])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_reads_no_number_from_the_device(arch: Architecture, n_dead: int) -> None:
    watch = Watch()
    step = step_of(arch, watch, n_dead)
    step()  # Adam makes its moments
    with watch:
        step()
    assert watch.n_scalars == 0
    assert watch.n_nonzero == 1  # the list of the dead latents, whose length has to be known


def test_a_read_number_would_be_seen() -> None:
    watch = Watch()
    with watch:
        float(torch.zeros(()))
    assert watch.n_scalars == 1
