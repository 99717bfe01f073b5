"""How the processes that `torchrun` starts share the stage: batches of tokens to encode, latents to associate.

The first process decides and writes; the others hand it what they have found. Who does what never changes a result:
shares are runs of consecutive items, and what is joined is in the order of the items again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from collect.process.ranks import LONGEST_WAIT, Process, in_touch


class Division:
    """This process's place among those that share the stage."""

    def __init__(self, place: int = 0, n: int = 1) -> None:
        self.place = place
        self.n = n

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.place == 0

    def agree(self, decide: Callable[[], Any]) -> Any:
        """Have the first process decide, and tell all, which wait for it.

        Args:
            decide: returns what JSON can hold; called in the first process only.

        Raises:
            UserError: as `decide` raised it, in every process.
        """
        return Process(rank=self.place, world_size=self.n).agree(decide)

    def share(self, n_items: int) -> range:
        """This process's items, of which all have about the same number."""
        return range(n_items * self.place // self.n, n_items * (self.place + 1) // self.n)

    def share_by_cost(self, costs: Float64[np.ndarray, " item"] | Int64[np.ndarray, " item"]) -> range:
        """This process's items, of which all have about the same cost."""
        ends = np.cumsum(costs, dtype=np.float64)
        total = ends[-1] if len(ends) else 0.0
        starts = [int(np.searchsorted(ends, total * place / self.n, side="right")) for place in range(self.n)]
        return range(starts[self.place] if self.place else 0, [*starts[1:], len(ends)][self.place])

    def join(self, own: Shaped[np.ndarray, "item ..."]) -> Shaped[np.ndarray, "all_items ..."]:
        """Join the items of all processes in the order of the processes; every process gets them."""
        if self.n == 1:
            return own
        import torch
        import torch.distributed as dist

        parts: list[np.ndarray] = []
        for place in range(self.n):
            count = torch.tensor(len(own))
            dist.broadcast(count, place)
            part = own if place == self.place else np.empty((int(count), *own.shape[1:]), dtype=own.dtype)
            content = torch.from_numpy(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
            dist.broadcast(content, place)
            parts.append(part)
        return np.concatenate(parts)

    def total(self, own: Float64[np.ndarray, ...]) -> Float64[np.ndarray, ...]:
        """Sum over all processes, which each gets; exact, whatever their order, where all are whole numbers."""
        if self.n == 1:
            return own
        import torch
        import torch.distributed as dist

        total = torch.from_numpy(own.copy())
        dist.all_reduce(total)
        return total.numpy()

    def meet(self) -> None:
        """Go on when all processes are here."""
        self.join(np.zeros(1, dtype=np.int64))

    def join_json(self, own: list[Any]) -> list[Any]:
        """Join lists of what JSON can hold, as `join` does arrays; numbers stay the same to the last bit."""
        if self.n == 1:
            return own
        content = json.dumps(own).encode()
        sizes = self.join(np.array([len(content)]))
        joined = self.join(np.frombuffer(bytearray(content), dtype=np.uint8)).tobytes()
        ends = [0, *np.cumsum(sizes).tolist()]
        return [item for start, stop in itertools.pairwise(ends) for item in json.loads(joined[start:stop])]


ALONE = Division()
"""A process that shares with nobody."""


def blocks_of(costs: Int64[np.ndarray, " item"], most: int) -> Iterator[range]:
    """Runs of consecutive items with at most `most` cost in all, or of one item."""
    start, total = 0, 0
    for item, cost in enumerate(costs.tolist()):
        if item > start and total + cost > most:
            yield range(start, item)
            start, total = item, 0
        total += cost
    if start < len(costs):
        yield range(start, len(costs))


@contextmanager
def joined_processes(process: Process) -> Generator[Division]:
    """Within the block, the processes of the launcher are in touch."""
    if process.world_size == 1:
        yield ALONE
        return
    with in_touch("gloo", LONGEST_WAIT):
        yield Division(process.rank, process.world_size)
