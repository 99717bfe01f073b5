"""Memory of a training: what it takes at least, and how a process that trains on a CPU keeps it.

A step makes and drops tensors as large as its matrices. The C library gives blocks of more than 32 MiB back to the
system when they are freed and asks for new ones the next time, which the system then fills with zeros page by page:
that can take as long as the work on them.
"""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

import torch

from collect.errors import UserError
from collect.process.machine import usable_memory_bytes
from train_sae.config import Architecture

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # names and defaults are those of glibc's malloc.h
_MIB = 2**20


_FLOAT32_BYTES = 4
_MATRICES: dict[Architecture, tuple[int, int]] = {"matching_pursuit": (1, 1), "frozen_decoder": (2, 1)}
"""Matrices `[d_sae, d_in]` of an architecture, and how many of these are trained; elsewhere two, and both."""


def least_bytes(arch: Architecture, d_in: int, d_sae: int) -> int:
    """Memory that the matrices of an SAE and Adam's two moments of them take; a training needs more besides."""
    n_matrices, n_trained = _MATRICES.get(arch, (2, 2))
    return _FLOAT32_BYTES * d_in * d_sae * (n_matrices + 2 * n_trained)


def require_memory(n_bytes: int, device: torch.device) -> None:
    """Check that what a training takes at least is there.

    Args:
        n_bytes: of this process.
        device: where it trains.

    Raises:
        UserError: it is not.
    """
    there = usable_memory_bytes() if device.type != "cuda" else torch.cuda.mem_get_info(device)[0]
    if n_bytes > there:
        raise UserError(
            f"The training takes at least {n_bytes / 1e9:,.1f} GB of memory for its weights and optimiser, and "
            f"{device} has {there / 1e9:,.1f} GB left: lower --d-sae, train fewer SAEs at once, or divide the latents "
            "among several GPUs with --options shard_latents=true."
        )


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Within the block, keep the memory of freed tensors for the next ones; at its end, give it back.

    On systems other than Linux with glibc this does nothing.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 64 * _MIB)
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, 65536)
        libc.mallopt(_M_TRIM_THRESHOLD, _MIB // 8)
        libc.mallopt(_M_TOP_PAD, _MIB // 8)
        libc.malloc_trim(0)
