"""Training steps that give the same bits each time they are run on one machine."""

import contextlib
import os
from collections.abc import Generator

import torch

_CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
_CUBLAS_WORKSPACE = ":4096:8"
"""Fixed buffers; without them cuBLAS may sum in another order. Source: its manual, "Results reproducibility"."""


@contextlib.contextmanager
def deterministic(wanted: bool) -> Generator[None]:
    """Within the block, let torch use only deterministic algorithms, and raise where it has none.

    On a CPU the steps are deterministic anyway for a given number of threads. Enter it before the first matrix product
    on a GPU, because cuBLAS allocates its buffers then.

    Args:
        wanted: whether to do so; otherwise torch is left as it is.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(_CUBLAS_VARIABLE, _CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=only_warned)
