"""Memory of the process that trains on a CPU."""

import ctypes
import resource

import pytest
import torch

from train_sae.memory import freed_memory_kept

MIB = 2**20
PAGES = 64 * MIB // resource.getpagesize()


def faults_of_a_tensor() -> int:
    """Pages that the system fills while a tensor of 64 MiB is made, written and dropped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 * MIB).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_within_the_block_only() -> None:
    tries = range(12)  # the first ones may lie in holes that are a little too short for the next
    assert min(faults_of_a_tensor() for _ in tries) > PAGES / 2
    with freed_memory_kept():
        assert min(faults_of_a_tensor() for _ in tries) < PAGES / 20
    assert min(faults_of_a_tensor() for _ in tries) > PAGES / 2


def test_elsewhere_the_block_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept():
        assert float(torch.ones(3).sum()) == 3
