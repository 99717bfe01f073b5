"""Unpacking a .zip file from elsewhere into one folder, resumable, every member checked.

Members are put directly into the folder under the last part of their names, whatever folders they have in the archive,
so no name can lead out of it. An archive is refused as a whole if a name tries to lead out or is unfit for a terminal
or a file system, if it has a link, or if it has more content than its size can plausibly hold. A member appears under
its name once it is complete and its CRC is right. One that is there already is checked in the same way and not written
again.
"""

import errno
import os
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from collect.arguments import MOST_BYTES
from collect.errors import UserError
from collect.printable import printable

BLOCK_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""Left free on the disk, for file tables and for other writes in the meantime."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
MOST_GROWTH = 200
"""If the content is more than this many times larger than the archive, it is a bomb: JSON of boxes grows about
twelvefold."""
COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The methods that are read: these decompress block by block."""
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a method or version of the format that zipfile does not know
    RuntimeError,  # an encrypted member
    ValueError,  # impossible offsets, and names that are not text
    OverflowError,
)
"""What zipfile raises if an archive is not what it should be."""


class DamagedArchive(UserError):
    """An archive that is not whole, or whose content does not have its CRC."""

    def __init__(self, archive: Path, reason: str) -> None:
        self.reason = printable(reason)
        super().__init__(f"{printable(archive, 4096)} is damaged ({self.reason}): delete it and fetch it again.")


def unpack(archive: Path, folder: Path, suffix: str, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Unpack the members whose names end in `suffix`; hidden ones are left out.

    Args:
        archive: .zip file.
        folder: where the members go; made if there is none.
        suffix: such as `.mp4`.
        progress: is called with the bytes that are done and the bytes of all members together.

    Returns:
        File name -> size in bytes, of the members in the order of the archive.

    Raises:
        DamagedArchive: the archive is not whole, or a member's CRC is wrong.
        UserError: the archive has no such member, two of one name, one that leads out of the folder or that cannot be
            read, or too much in it; or the disk is too small. What is unpacked stays.
    """
    try:
        with _opened(archive) as opened:
            members = _members(archive, opened.infolist(), suffix)
            n_bytes = sum(member.file_size for _, member in members)
            folder.mkdir(parents=True, exist_ok=True)
            require_space(folder, _missing_bytes(folder, members), archive.name)
            done = 0
            for name, member in members:
                target = folder / name
                if not (_size(target) == member.file_size and _crc(target) == member.CRC):
                    _extract(opened, member, target)
                done += member.file_size
                progress(done, n_bytes)
    except OSError as error:
        shown = printable(archive, 4096)
        if error.errno not in DISK_FULL:
            raise UserError(
                f"{shown} cannot be unpacked to {printable(folder, 4096)} ({error.strerror or error}): make that a "
                "folder where you may write."
            ) from None
        raise UserError(
            f"The disk is full while {shown} is being unpacked to {printable(folder, 4096)}: make room there and run "
            "the same command again; it goes on where it was."
        ) from None
    return {name: member.file_size for name, member in members}


def bytes_to_unpack(archive: Path, folder: Path, suffix: str) -> int:
    """Bytes that `unpack` would write; 0 if the archive is damaged, which `unpack` will say."""
    try:
        with _opened(archive) as opened:
            return _missing_bytes(folder, _members(archive, opened.infolist(), suffix))
    except (DamagedArchive, OSError):
        return 0


@contextmanager
def _opened(archive: Path) -> Generator[zipfile.ZipFile]:
    """Open an archive; whatever zipfile raises, then or while it is read, becomes `DamagedArchive`."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except UserError:  # a ValueError too, and already a sentence
        raise
    except _DAMAGE as error:
        raise DamagedArchive(archive, str(error) or type(error).__name__) from None


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Make sure that the disk has room.

    Args:
        folder: on the disk; need not be there yet.
        n_bytes: how much will be written.
        what: what will be written, for the message.

    Raises:
        UserError: there is less.
    """
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if n_bytes and free < n_bytes + SPARE_BYTES:
        raise UserError(
            f"{what} needs {n_bytes / 1e9:.2f} GB on the disk of {folder}, where {free / 1e9:.2f} GB are free: make "
            "room there or choose another folder."
        )


def _missing_bytes(folder: Path, members: Sequence[tuple[str, zipfile.ZipInfo]]) -> int:
    return sum(member.file_size for name, member in members if _size(folder / name) != member.file_size)


def _members(archive: Path, infos: Sequence[zipfile.ZipInfo], suffix: str) -> list[tuple[str, zipfile.ZipInfo]]:
    found: dict[str, tuple[str, zipfile.ZipInfo]] = {}
    for info in infos:
        name = PurePosixPath(info.filename).name
        reason = _mistrust(info, name)
        if reason is not None:
            raise _untrusted(archive, f"has the member '{printable(info.filename)}', {reason}")
        if not name or info.is_dir() or name.startswith(".") or not name.lower().endswith(suffix):
            continue
        if info.compress_type not in COMPRESSIONS:
            raise UserError(
                f"{printable(archive, 4096)} has the member '{printable(info.filename)}', compressed by method "
                f"{info.compress_type}, which is not read: pack it anew with `zip`."
            )
        # Some file systems do not distinguish upper from lower case, or different ways to encode a letter.
        key = unicodedata.normalize("NFC", name).casefold()
        if key in found:
            raise _untrusted(archive, f"has two members of the name {name}")
        found[key] = (name, info)
    if not found:
        raise _untrusted(archive, f"has no {suffix} member")
    size = archive.stat().st_size
    members = list(found.values())
    if sum(info.compress_size for _, info in members) > size:
        raise _untrusted(archive, "has members that overlap")
    if sum(info.file_size for _, info in members) > MOST_GROWTH * size:
        raise _untrusted(archive, f"would unpack to more than {MOST_GROWTH} times its size")
    return members


def _untrusted(archive: Path, reason: str) -> UserError:
    return UserError(
        f"{printable(archive, 4096)} {reason}: it is not to be trusted, or not what it should be; delete it."
    )


def _mistrust(info: zipfile.ZipInfo, name: str) -> str | None:
    """Why an archive with this member is refused, if it is."""
    path = PurePosixPath(info.filename)
    leads_out = path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename
    if leads_out or (stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)):
        return "which leads out of its folder or is a link"
    if printable(name, len(name)) != name:
        return "whose name has characters that are not seen as themselves"
    if len(name.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        return f"whose name has more than {MOST_BYTES} bytes"
    return None


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        with opened.open(member) as source, temporary.open("xb") as sink:
            shutil.copyfileobj(source, sink, BLOCK_BYTES)  # at most its stated size; raises where the CRC is wrong
            sink.flush()
            os.fsync(sink.fileno())
        if temporary.stat().st_size != member.file_size:
            raise zipfile.BadZipFile(f"{printable(member.filename)} ends early")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() and not path.is_symlink() else -1


def _crc(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value
