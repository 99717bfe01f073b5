"""How many latents can be dead, known to the host without waiting for the device.

A latent that is dead after L more steps has already been silent for all but L steps' tokens. So these latents are
counted at every step, the number is copied to the host without waiting, and L steps later it bounds how many are dead.
"""

from collections import deque

import torch
from jaxtyping import Int
from torch import Tensor

from collect.process.device import mark_work
from train_sae.step.state import TrainState

_LAG = 4


class DeadBound:
    """Bounds the number of dead latents of one training."""

    def __init__(self) -> None:
        self._counts: deque[_Count] = deque()
        self._next: tuple[int, int, int] | None = None

    def at(self, state: TrainState, dead_tokens: int, n_tokens: int) -> int:
        """An upper bound for the number of dead latents; call this before every step.

        The host waits for the device at the first step, and at every step if latents die within a few steps.

        Args:
            state: before the step.
            dead_tokens: a latent is dead after this many tokens.
            n_tokens: tokens of a step.
        """
        # Counting long before a death would count the living too.
        lag = min(_LAG, dead_tokens // (4 * n_tokens))
        if self._next != (state.step, dead_tokens, n_tokens):
            self._counts.clear()
        self._next = (state.step + 1, dead_tokens, n_tokens)
        self._counts.append(_Count((state.tokens_since_fired >= dead_tokens - lag * n_tokens).sum()))
        if len(self._counts) > lag + 1:
            self._counts.popleft()
        return self._counts[0].number()


class _Count:
    """A number on its way to the host."""

    def __init__(self, number: Int[Tensor, ""]) -> None:
        self._host = torch.empty((), dtype=number.dtype, pin_memory=number.is_cuda)
        self._host.copy_(number, non_blocking=True)
        self._arrival = mark_work(number.device)

    def number(self) -> int:
        """The number, when it has arrived."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return int(self._host.numpy())
