"""Memory of the process that trains on a CPU."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch

from collect.errors import UserError
from train_sae.config import Architecture
from train_sae.step.memory import freed_memory_kept, least_bytes, require_memory
from train_sae.step.state import initial_state

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


def test_what_a_training_takes_at_least_is_what_its_state_holds(arch: Architecture) -> None:
    d_in, d_sae = 32, 256
    state = initial_state(torch.zeros(d_in), d_sae, 0, arch)
    matrices = {name: weight for name, weight in state.weights.tensors().items() if weight.ndim == 2}
    trained = [name for name in matrices if name in state.trained]
    # Float32; Adam keeps two moments of what is trained.
    assert least_bytes(arch, d_in, d_sae) == 4 * d_in * d_sae * (len(matrices) + 2 * len(trained))


def test_a_training_that_cannot_fit_says_how_much_it_takes() -> None:
    require_memory(1, torch.device("cpu"))
    with pytest.raises(UserError, match=r"takes at least 4,000,000\.0 GB of memory .*: lower --d-sae"):
        require_memory(4 * 10**15, torch.device("cpu"))
