"""Whether a video file is encrypted: its pictures are there, but nobody can see them without the key.

In MP4 an encrypted track has a sample entry of its own, `encv` (ISO/IEC 23001-7) or `drmi` (FairPlay), in place of the
codec's; in Matroska and WebM FFmpeg gives the key's name in the stream's metadata.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer

_ENTRIES = (b"encv", b"drmi")
_TO_ENTRIES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_MAX_BOXES = 10_000
"""Most boxes of one level to look at."""


def is_encrypted(path: Path, container: InputContainer) -> bool:
    """Whether a file's pictures are encrypted.

    Args:
        path: the file.
        container: opened.
    """
    if "mp4" in container.format.name.split(","):
        with path.open("rb") as file:
            return any(kind in _ENTRIES for kind in _sample_entries(file, 0, path.stat().st_size, _TO_ENTRIES))
    return any("enc_key_id" in stream.metadata for stream in container.streams)


def _sample_entries(file: BinaryIO, start: int, stop: int, names: tuple[bytes, ...]) -> Iterator[bytes]:
    """Types of all sample entries below a range of an MP4 file."""
    for kind, begin, end in _boxes(file, start, stop):
        if not names:
            yield kind
        elif kind == names[0]:
            # The list of sample entries begins with version, flags and their number.
            yield from _sample_entries(file, begin + (8 if kind == b"stsd" else 0), end, names[1:])


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box between two places of the file."""
    at = start
    for _ in range(_MAX_BOXES):
        if at + 8 > stop:
            return
        file.seek(at)
        head = file.read(16)
        size, kind, length = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, length = int.from_bytes(head[8:16], "big"), 16
        end = stop if size == 0 else at + size
        if end < at + length or end > stop:
            return
        yield kind, at + length, end
        at = end
