"""Memory of the process that trains on a CPU."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch

from train_sae.step.memory import freed_memory_kept

RESIDENT = """
import json, mmap
import torch
from train_sae.step.memory import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE / 2**20

def after_a_tensor():
    torch.empty(2**24).fill_(1.0)
    return resident()

after_a_tensor()
start = resident()
outside = after_a_tensor()
with freed_memory_kept():
    within = after_a_tensor()
print(json.dumps([mib - start for mib in (outside, within, resident())]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_stays_with_the_process_within_the_block_only() -> None:
    # Where the memory of a process lies depends on what it did before: this one has done nothing.
    done = subprocess.run([sys.executable, "-c", RESIDENT], check=True, capture_output=True, text=True)
    outside, within, after = json.loads(done.stdout)
    # The tensor takes 64 MiB.
    assert outside < 8
    assert within > 56
    assert after < 8


def test_elsewhere_the_block_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept():
        assert float(torch.ones(3).sum()) == 3
