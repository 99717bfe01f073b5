"""Memory of the process that trains on a CPU.

A step makes and drops tensors as large as its matrices. The C library gives blocks of more than 32 MiB back to the
system when they are freed and asks for new ones the next time, which the system then fills with zeros page by page:
that can take as long as the work on them.
"""

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # names and defaults are those of glibc's malloc.h
_MIB = 2**20


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
