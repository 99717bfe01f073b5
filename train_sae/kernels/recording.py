"""Steps recorded as CUDA graphs: kernels that would take the host milliseconds to launch are launched at once.

The first step of a kind is taken as it is, which compiles its kernels. The second is recorded, and from then on the
recording is played. The batch is copied to where the recorded step reads it, and its results are copied from where it
writes them. Recordings of different kinds share their memory: only one of them runs at a time.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from train_sae.step.settings import StepStats


class Recordings:
    """The recorded steps of one training."""

    def __init__(self) -> None:
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}
        self._last: Hashable = None
        self._pool: Any = None
        self._batch: Tensor | None = None

    def forget(self) -> None:
        """Drop all recordings, because the step has changed."""
        self._recorded.clear()
        self._last = None

    def take(
        self, kind: Hashable, x: Float[Tensor, "token d_in"], step: Callable[[Float[Tensor, "token d_in"]], StepStats]
    ) -> StepStats:
        """Take a step, from its recording if there is one.

        Args:
            kind: steps of one kind launch the same kernels with the same numbers from the host.
            x: the batch, on the device.
            step: takes the step with device operations only, without waiting.
        """
        kind = (kind, x.shape)
        recorded = self._recorded.get(kind)
        if recorded is None:
            if self._last != kind:
                self._last = kind
                return step(x)
            recorded = self._recorded[kind] = self._record(x, step)
        graph, batch, stats = recorded
        batch.copy_(x)
        graph.replay()
        return StepStats(*stats.clone().unbind())

    def _record(
        self, x: Float[Tensor, "token d_in"], step: Callable[[Float[Tensor, "token d_in"]], StepStats]
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        if self._batch is None or self._batch.shape != x.shape:
            self._batch = torch.empty_like(x)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead may continue meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            stats = torch.stack([value.float() for value in step(self._batch)])
        return graph, self._batch, stats
