"""Small real video files for tests: any codec, frame times, rotation and damage."""

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from collect.vlm.conformance.clips import noise as noise  # what most tests write into their videos

EXACT = {"crf": "1", "g": "1"}
"""Encoder options that keep colours within a few levels and let no frame depend on another."""


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    rate: int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    times_ms: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB frames; `times_ms` gives each its own presentation time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.pix_fmt = "yuv420p"
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(frames):
            if i == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbered(n: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames that tell their own number: `number_of` reads it back."""
    return [np.full((height, width, 3), 20 + 5 * i, dtype=np.uint8) for i in range(n)]


def number_of(image: np.ndarray) -> int:
    return round((float(image.mean()) - 20) / 5)


def rotate_header(path: Path, matrix: tuple[int, int, int, int]) -> None:
    """Overwrite the display matrix (a, b, c, d) of an MP4's only track.

    In ISO 14496-12, x' = a x + c y and y' = b x + d y, so that (0, 1, -1, 0) turns the picture clockwise.
    """
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") + 4
    assert data[box] == 0, "version 0 of the box"
    at = box + 4 + 20 + 16  # version and flags; times, id and duration; reserved, layer, group, volume
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
