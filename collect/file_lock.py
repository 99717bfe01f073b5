"""A lock that one process holds, on a file; the operating system releases it when the process ends, however it ends."""

import fcntl
import os
from pathlib import Path

from collect.errors import UserError


def take_lock(path: Path, refusal: str | None = None) -> int:
    """Lock a file, made if there is none, without waiting.

    Args:
        path: the lock file.
        refusal: what the user is told if another process holds it; by default that it writes the file's folder.

    Returns:
        The open descriptor; closing it releases the lock.

    Raises:
        UserError: another process holds the lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            refusal or f"Another process is writing {path.parent}: wait until it ends, or choose another --out."
        ) from None
    return descriptor
