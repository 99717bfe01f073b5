"""The lock of an artefact folder: one process writes it, and a second one learns who that is.

The lock is the file `.writer.lock` in the folder. It is held through `flock`, which the operating system releases when
a process ends, however it ends. The file says who holds the lock, and is removed when the lock is released.

Where the file system has no `flock` (some cluster and cloud ones), the lock is the file `.writer.claim.lock`, and
whoever makes it holds it. If a process of this machine was killed and left one, it is taken over. If it is from another
machine, nobody can know whether its process still runs, so the message says which file to delete if it does not.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shlex
import socket
import stat
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from collect.artefact.json_file import read_json
from collect.errors import UserError
from collect.printable import printable

LOCK_NAME = ".writer.lock"
LOCK_SUFFIX = ".lock"
"""Names of locks end in this; they belong to no artefact."""
_CLAIM_SUFFIX = ".claim.lock"
_WITHOUT_FLOCK = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_NO_PLACE_TO_WRITE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_LARGEST = 65536
_HOLDER_APPEARS_S = 1.0
_POLL_S = 0.05
_MOST_REMOVALS = 1000
"""Times that a folder may vanish while it is being locked; other processes that start and end remove it a few times."""


@contextmanager
def writing(folder: Path, *, wait: bool = False) -> Generator[None]:
    """Within the block, be the only process that writes a folder.

    The folder is made if there is none, and removed again, with the parents made for it, if nothing was put there. A
    folder that cannot be written anyway, for example on a read-only disk, is not locked.

    Args:
        folder: the artefact folder.
        wait: wait until it is free instead of refusing; for what takes moments.

    Raises:
        UserError: another process is writing it, it cannot be made, or a file or a link to nothing is in its way.
    """
    made: list[Path] = []
    try:
        lock = _taken(folder, made, wait=wait)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # something was put there, which is what it was made for
                path.rmdir()


def _taken(folder: Path, made: list[Path], *, wait: bool) -> "FileLock | None":
    n_removals = 0
    while True:
        _make(folder, made)
        try:
            return FileLock(folder / LOCK_NAME)
        except FileNotFoundError:
            # The process that made the folder has just removed it because it was empty; or no folder can be made there,
            # as below /proc.
            n_removals += 1
            if n_removals > _MOST_REMOVALS:
                raise UserError(
                    f"{printable(folder, 4096)} cannot be made: name a folder in a place where you may write."
                ) from None
        except Held as held:
            if not wait:
                raise held.refusal(folder) from None
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in _NO_PLACE_TO_WRITE or os.access(folder, os.W_OK):
                raise
            return None


def _make(folder: Path, made: list[Path]) -> None:
    """Make a folder with its parents, and note which of them were not there."""
    in_way = next((path for path in (folder, *folder.parents) if _is_no_folder(path)), None)
    if in_way is not None:
        raise UserError(
            f"{printable(in_way, 4096)} is not a folder, as {printable(folder, 4096)} needs it to be: "
            "move it away, or name another folder."
        )
    dangling = next((path for path in (folder, *folder.parents) if path.is_symlink() and not path.exists()), None)
    if dangling is not None:
        raise UserError(
            f"{printable(dangling, 4096)} is a link to {printable(dangling.readlink(), 4096)}, which does not exist: "
            "make that folder, or name another one."
        )
    for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        try:
            path.mkdir()
        except FileExistsError:
            continue  # another process has made it
        except FileNotFoundError:
            return  # its parent was removed meanwhile; the caller tries again
        if path not in made:
            made.append(path)


def _is_no_folder(path: Path) -> bool:
    """Whether there is something other than a folder; checked once, as another process may remove a folder."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


class Held(Exception):  # not an error: whoever wants the lock may wait for it
    """Another process holds a lock."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def refusal(self, what: Path) -> UserError:
        """What the user sees.

        Args:
            what: what the other process is writing.
        """
        cure = "wait until it ends, or end it"
        if self._path.name.endswith(_CLAIM_SUFFIX):
            cure += f", or delete {printable(self._path, 4096)} if it is no longer running"
        return UserError(
            f"{printable(what, 4096)} is being written by another process{_described(_holder_of(self._path))}: {cure}."
        )


class FileLock:
    """A lock that one process holds on a file.

    Args:
        path: the lock file, made if there is none.

    Raises:
        Held: another process holds it.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, -1
        while not _is_at(self._descriptor, self._path):
            # The last holder removes the file: a lock on a file that is no longer there would keep nobody out.
            self._close()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._close()
                raise Held(path) from None
            except OSError as error:
                self._close()
                if error.errno not in _WITHOUT_FLOCK:
                    raise
                path.unlink(missing_ok=True)
                self._path = path.with_name(path.name.removesuffix(LOCK_SUFFIX) + _CLAIM_SUFFIX)
                self._descriptor = _claim(self._path)
                break
        with contextlib.suppress(OSError):  # on a full disk the lock holds, but does not say whose it is
            record = json.dumps(_ourselves()).encode()
            os.pwrite(self._descriptor, record, 0)
            os.ftruncate(self._descriptor, len(record))

    def release(self) -> None:
        """Release the lock and remove its file."""
        if _is_at(self._descriptor, self._path):
            self._path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def take_lock(path: Path, what: Path) -> FileLock:
    """Lock a file without waiting.

    Args:
        path: the lock file, made if there is none.
        what: what its holder writes, for the message.

    Raises:
        UserError: another process holds it.
    """
    try:
        return FileLock(path)
    except Held as held:
        raise held.refusal(what) from None


def _claim(path: Path) -> int:
    """Hold a lock by having made its file, where the file system has no `flock`."""
    for _ in range(2):
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            left = _read(path)
            if not _is_dead(left):
                break
            # If several processes find an abandoned lock, only one of them can move it away.
            aside = path.with_name(f".{secrets.token_hex(4)}{_CLAIM_SUFFIX}")
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
                if _read(aside) != left:  # it was a new one already
                    aside.rename(path)
                    break
                aside.unlink()
    raise Held(path)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of that name."""
    if descriptor < 0:
        return False
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _ourselves() -> dict[str, Any]:
    name = Path(sys.argv[0]).name
    program = "video-sae" if name in {"video_sae.py", "video-sae"} else name
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join([program, *sys.argv[1:]]),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "began": _began(os.getpid()),
    }


def _read(path: Path) -> dict[str, Any] | None:
    """What a lock says about its holder; None if it says nothing."""
    try:
        content: object = read_json(path, "delete it", _LARGEST)
    except UserError:
        return None
    return cast("dict[str, Any]", content) if isinstance(content, dict) else None


def _holder_of(path: Path) -> dict[str, Any] | None:
    """What a held lock says; its holder may be about to write it, over what a killed process left."""
    deadline = time.monotonic() + _HOLDER_APPEARS_S
    while time.monotonic() < deadline:
        found = _read(path)
        if found is not None and not _is_dead(found):
            return found
        time.sleep(_POLL_S)
    return None


def _described(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return ""
    shown = {name: printable(holder.get(name, "unknown")) for name in ("pid", "host", "command", "since")}
    return f" (`{shown['command']}`, process {shown['pid']} on {shown['host']}, since {shown['since']})"


def _is_dead(holder: dict[str, Any] | None) -> bool:
    """Whether a holder is known to have ended: a process of this machine that is gone, or whose number was reused."""
    if holder is None or holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    pid = cast("int", holder["pid"])
    if pid == os.getpid():
        return holder.get("began") != _began(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return holder.get("began") is not None and holder["began"] != _began(pid)


def _began(pid: int) -> str | None:
    """When a process began, in ticks since the machine did, which tells it from a later one with the same number."""
    try:
        # The second field is the program's name in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
