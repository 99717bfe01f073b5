"""Memory of the process that trains on a CPU."""

import ctypes
import json
import subprocess
import sys

import pytest
import torch

from train_sae.memory import freed_memory_kept

FAULTS = """
import json, resource
import torch
from train_sae.memory import freed_memory_kept

def fewest():
    # The first tensors may lie in holes that are a little too short for the next.
    found = []
    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.empty(2**24).fill_(1.0)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)

before = fewest()
with freed_memory_kept():
    within = fewest()
print(json.dumps([before, within, fewest()]))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_within_the_block_only() -> None:
    # Where the memory of a process lies depends on what it did before: this one has done nothing.
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    before, within, after = json.loads(done.stdout)
    # A tensor of 64 MiB takes that many new pages, or none.
    assert before > 1000
    assert within < before / 20
    assert after > before / 2


def test_elsewhere_the_block_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    with freed_memory_kept():
        assert float(torch.ones(3).sum()) == 3
