"""Unpacking a .zip file of somebody else's into one folder, resumable, every member checked.

Members are put right into the folder under their own last name, whatever folders they have in the archive, so that no
name can lead out of it; an archive with a name that tries to, or with a link, is refused as a whole. A member appears
under its name once it is whole and its CRC is right. One that is there already is checked in the same way and not
written again.
"""

import errno
import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from collect.errors import UserError

BLOCK_BYTES = 1 << 20
SPARE_BYTES = 64 << 20
"""Left free on the disk, for file tables and for what else is written at the time."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DamagedArchive(UserError):
    """An archive that is not whole, or whose content does not have its CRC."""

    def __init__(self, archive: Path, reason: str) -> None:
        super().__init__(f"{archive} is damaged ({reason}): delete it and fetch it again.")
        self.reason = reason


def unpack(archive: Path, folder: Path, suffix: str, progress: Callable[[int, int], None]) -> dict[str, int]:
    """Unpack the members whose names end in `suffix`; hidden ones are left out.

    Args:
        archive: .zip file.
        folder: where the members go; made where there is none.
        suffix: such as `.mp4`.
        progress: is told the bytes that are done and those of all members together.

    Returns:
        File name -> size in bytes, of the members in the order of the archive.

    Raises:
        DamagedArchive: the archive is not whole, or a member's CRC is wrong.
        UserError: the archive has no such member, two of one name, or one that leads out of the folder; or the disk is
            too small. What is unpacked stays.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
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
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DamagedArchive(archive, str(error)) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise UserError(
            f"The disk is full while {archive} is being unpacked to {folder}: make room there and run the same command "
            "again; it goes on where it was."
        ) from None
    return {name: member.file_size for name, member in members}


def bytes_to_unpack(archive: Path, folder: Path, suffix: str) -> int:
    """Bytes that `unpack` would write; 0 where the archive is damaged, which `unpack` will tell."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return _missing_bytes(folder, _members(archive, opened.infolist(), suffix))
    except zipfile.BadZipFile:
        return 0


def require_space(folder: Path, n_bytes: int, what: str) -> None:
    """Make sure that the disk has room.

    Args:
        folder: on the disk; need not be there yet.
        n_bytes: how much is to be written.
        what: of which, for the message.

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
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        _refuse_escape(archive, info)
        name = PurePosixPath(info.filename).name
        if info.is_dir() or name.startswith(".") or not name.lower().endswith(suffix):
            continue
        if name in found:
            raise UserError(f"{archive} has two members of the name {name}: it is not what it should be; delete it.")
        found[name] = info
    if not found:
        raise UserError(f"{archive} has no {suffix} member: it is not what it should be; delete it.")
    return list(found.items())


def _refuse_escape(archive: Path, info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(info.filename)
    mode = info.external_attr >> 16
    leads_out = path.is_absolute() or ".." in path.parts or "\\" in info.filename or ":" in info.filename
    if leads_out or (stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR)):
        raise UserError(
            f"{archive} has the member {info.filename!r}, which leads out of its folder or is a link: "
            "it is not to be trusted; delete it."
        )


def _extract(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    temporary = target.with_name(f".{target.name}.partial")
    temporary.unlink(missing_ok=True)
    try:
        with opened.open(member) as source, temporary.open("xb") as sink:
            shutil.copyfileobj(source, sink, BLOCK_BYTES)  # raises where the CRC is wrong at the end
            sink.flush()
            os.fsync(sink.fileno())
        if temporary.stat().st_size != member.file_size:
            raise zipfile.BadZipFile(f"{member.filename} ends early")
        temporary.replace(target)
    except RuntimeError as error:  # an encrypted member
        raise zipfile.BadZipFile(str(error)) from None
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
