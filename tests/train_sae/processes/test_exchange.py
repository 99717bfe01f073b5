"""What processes exchange, and how."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch

from collect.errors import UserError
from collect.process.ranks import LONGEST_WAIT
from train_sae.processes import parallel
from train_sae.processes.group import Group
from train_sae.processes.parallel import DataParallel, in_buckets
from train_sae.step.selection import select_batch_topk


def test_small_tensors_share_a_bucket_and_large_ones_have_their_own() -> None:
    sizes = [9, 2, 3, 7, 1, 5]
    tensors = [torch.zeros(size) for size in sizes]
    # At most six elements together: 9 and 7 go alone, and a bucket that is full is closed for good.
    assert [[len(part) for part in bucket] for bucket in in_buckets(tensors, most=6)] == [[9], [2, 3, 1], [7], [5]]
    mixed = [torch.zeros(1), torch.zeros(1, dtype=torch.float64), torch.zeros(2)]
    assert [[id(part) for part in bucket] for bucket in in_buckets(mixed)] == [
        [id(mixed[0]), id(mixed[2])],
        [id(mixed[1])],
    ]


def test_tensors_of_a_bucket_are_averaged_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    reduced: list[int] = []

    def all_reduce(tensor: torch.Tensor, *, async_op: bool) -> Any:
        assert async_op
        reduced.append(tensor.numel())
        tensor.mul_(2).add_(4)  # another process, whose every element is four more
        return SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    square = torch.arange(6.0).view(2, 3)
    tensors = [torch.tensor(1.0), square.T, torch.zeros(0), torch.ones(2)]
    expected = [tensor + 2 for tensor in tensors]
    DataParallel().average_(iter(tensors))
    assert reduced == [9]
    for tensor, wanted in zip(tensors, expected, strict=True):
        assert torch.equal(tensor, wanted)
    assert torch.equal(square, expected[1].T)  # in place, also where it is a view
    DataParallel().average_([square])
    assert reduced == [9, 6]
    assert torch.equal(square, expected[1].T + 2)


class Threads:
    """What processes exchange, exchanged by threads."""

    def __init__(self, n: int) -> None:
        self.n, self._barrier, self._found = n, threading.Barrier(n), list[Any]([None] * n)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._found[rank] = value
        self._barrier.wait(20)
        found = list(self._found)
        self._barrier.wait(20)
        return found


class OfThreads(DataParallel):
    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads, self.rank = threads, rank
        self.n_processes = self.n_data = threads.n
        self.n_exchanged = 0

    def minimum(self, value: torch.Tensor) -> torch.Tensor:
        return torch.stack(self._threads.exchange(self.rank, value)).min()

    def _total(self, count: int, device: torch.device) -> int:
        assert device.type == "cpu"
        return sum(self._threads.exchange(self.rank, count))

    def _gather_uneven(self, values: torch.Tensor) -> list[torch.Tensor]:
        self.n_exchanged += len(values)
        return self._threads.exchange(self.rank, values)


@pytest.mark.parametrize("guess", [None, 0.0, 0.5, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_is_selected_without_exchanging_much(guess: float | None, dtype: torch.dtype) -> None:
    n_tokens, k = 40, 3
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n_tokens, 64, generator=generator).mul(size).to(dtype) for size in (1.0, 1.5)]
    groups = [OfThreads(together, rank) for together in [Threads(2)] for rank in range(2)]
    guessed = None if guess is None else torch.tensor(guess)
    with ThreadPoolExecutor(2) as executor:
        found = list(executor.map(lambda group: group.select_batch_topk(parts[group.rank], k, guessed), groups))
    expected = select_batch_topk(torch.cat(parts), k)
    n_positive = sum(int((part > 0).sum()) for part in parts)
    assert sum(group.n_exchanged for group in groups) < (1.0 if guess == 0.5 else 0.3) * n_positive
    assert torch.equal(torch.cat([each.latents for each in found]), expected.latents)
    assert torch.equal(torch.cat([each.values for each in found]), expected.values)
    assert torch.equal(torch.cat([found[0].offsets, found[1].offsets[1:] + found[0].offsets[-1]]), expected.offsets)


@pytest.mark.parametrize(("device", "backend"), [("cpu", "gloo"), ("cuda:1", "nccl")])
def test_the_device_decides_how_processes_exchange(monkeypatch: pytest.MonkeyPatch, device: str, backend: str) -> None:
    begun: list[tuple[str, Any]] = []

    @contextmanager
    def in_touch(name: str, longest_wait: Any) -> Generator[None]:
        begun.append((name, longest_wait))
        yield

    monkeypatch.setattr(parallel, "in_touch", in_touch)
    monkeypatch.setattr(parallel, "DataParallel", Group)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = mock.MagicMock()
    monkeypatch.setattr(torch.cuda, "device", current)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with parallel.joined(False, torch.device(device)):
        pass
    assert begun == [(backend, LONGEST_WAIT)]
    assert current.call_args_list == ([mock.call(torch.device(device))] if device != "cpu" else [])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    refused = pytest.raises(UserError, match="on its 2 GPUs: start one for each with --nproc-per-node 2")
    with refused if device != "cpu" else nullcontext(), parallel.joined(False, torch.device(device)):
        pass
