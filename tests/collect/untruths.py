"""Videos in all containers and codecs that PyAV writes, and what their headers may falsely say."""

import struct
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hypothesis import strategies as st

N_FRAMES = 24
X264 = {"crf": "4", "g": "8", "bf": "3", "x264-params": "b-adapt=0:threads=1:log-level=none"}
MPEG = {"qmin": "1", "qmax": "2", "g": "6", "bf": "2", "b_strategy": "0", "sc_threshold": "1000000000"}
VPX = {"deadline": "realtime", "cpu-used": "8", "crf": "4", "b": "4M", "g": "8"}


@dataclass(frozen=True)
class Format:
    suffix: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    container: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = (48, 64)

    @property
    def name(self) -> str:
        return f"{self.codec}{'-frag' if self.container else ''}{self.suffix}"


FORMATS = {
    one.name: one
    for one in (
        *(Format(suffix, "libx264", X264) for suffix in (".mp4", ".mov", ".mkv", ".avi", ".ts", ".flv", ".h264")),
        Format(".mp4", "libx264", X264, container={"movflags": "frag_keyframe+empty_moov"}),
        Format(
            ".mp4", "libx265", {"crf": "4", "preset": "ultrafast", "g": "8", "x265-params": "log-level=none:pools=1"}
        ),
        *(Format(suffix, "mpeg4", MPEG) for suffix in (".mp4", ".avi", ".mkv", ".ts")),
        *(Format(suffix, "mpeg2video", MPEG) for suffix in (".mpg", ".ts", ".mkv", ".vob", ".m2v")),
        Format(".mpg", "mpeg1video", MPEG),
        *(Format(suffix, "libvpx", VPX) for suffix in (".webm", ".mkv")),
        *(Format(suffix, "libvpx-vp9", VPX) for suffix in (".webm", ".mp4")),
        *(Format(suffix, "mjpeg", {"qmin": "1", "qmax": "2"}, "yuvj420p") for suffix in (".avi", ".mov", ".mkv")),
        *(Format(suffix, "ffv1") for suffix in (".mkv", ".avi")),
        Format(".gif", "gif", {}, "rgb8"),
        Format(".flv", "flv", {"qmin": "1", "qmax": "2", "g": "6"}),
        Format(".3gp", "h263", {"qmin": "1", "qmax": "2", "g": "6"}, size=(144, 176)),
        Format(".wmv", "wmv2", {"qmin": "1", "qmax": "2", "g": "6"}),
        Format(".nut", "ffv1"),
    )
}


def write(path: Path, made: Format) -> Path:
    """Frames of rising grey, so that each tells its place."""
    with av.open(str(path), "w", options=made.container) as container:
        stream: Any = container.add_stream(made.codec, rate=25, options=made.options)
        stream.pix_fmt = made.pix_fmt
        stream.height, stream.width = made.size
        if made.codec.startswith("mpeg"):
            stream.codec_context.max_b_frames = 2
        for i in range(N_FRAMES):
            frame = av.VideoFrame.from_ndarray(np.full((*made.size, 3), 24 + 8 * i, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sequential(path: Path) -> list[np.ndarray]:
    """All pictures that FFmpeg shows, in its order; none where it cannot open the file."""
    shown: list[np.ndarray] = []
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            packets = iter(container.demux(stream))
            while True:
                try:
                    packet = next(packets, None)
                except av.error.FFmpegError:
                    packet = None
                if packet is not None and not packet.size:
                    continue
                try:
                    frames = stream.codec_context.decode(packet)
                except av.error.FFmpegError:
                    frames = []
                shown += [frame.to_ndarray(format="rgb24") for frame in frames if not frame.is_corrupt]
                if packet is None:
                    return shown
    except (av.error.FFmpegError, IndexError):
        return shown


@dataclass(frozen=True)
class Untruth:
    """A change of a file: a kind, a place as a fraction, and a number."""

    kind: str
    where: float
    value: int

    @property
    def spoils(self) -> bool:
        """Whether pictures may be lost or changed, not only what is said of them."""
        return self.kind in ("cut", "flip", "zero")

    def apply(self, data: bytes) -> bytes:
        return KINDS[self.kind](data, self.where, self.value)


def _at(data: bytes, tag: bytes, where: float) -> int | None:
    places = [i for i in range(len(data) - len(tag)) if data.startswith(tag, i)]
    return places[int(where * len(places)) % len(places)] if places else None


def _put(data: bytes, at: int | None, content: bytes) -> bytes:
    return data if at is None else data[:at] + content + data[at + len(content) :]


def _field(tag: bytes, offset: int) -> Any:
    """Overwrite a big-endian number that stands so many bytes after a tag."""

    def change(data: bytes, where: float, value: int) -> bytes:
        at = _at(data, tag, where)
        return data if at is None else _put(data, at + offset, struct.pack(">I", value))

    return change


def _little(tag: bytes, offset: int) -> Any:
    def change(data: bytes, where: float, value: int) -> bytes:
        at = _at(data, tag, where)
        return data if at is None else _put(data, at + offset, struct.pack("<I", value))

    return change


def _renamed(tag: bytes, name: bytes) -> Any:
    return lambda data, where, _: _put(data, _at(data, tag, where), name)


def _edit(data: bytes, where: float, value: int) -> bytes:
    """An edit list that begins later and ends earlier."""
    at = _at(data, b"elst", 0.0)
    return data if at is None else _put(data, at + 12, struct.pack(">Ii", 100 + value % 900, int(where * 12000)))


def _flip(data: bytes, where: float, value: int) -> bytes:
    changed = bytearray(data)
    for i in range(1 + value % 3):
        changed[int(where * len(data) + 97 * i) % len(data)] ^= 1 << value % 8
    return bytes(changed)


def _zero(data: bytes, where: float, value: int) -> bytes:
    at = int(where * len(data))
    n = min(1 + value % 400, len(data) - at)
    return data[:at] + bytes(n) + data[at + n :]


KINDS: dict[str, Any] = {
    "nothing": lambda data, _where, _value: data,
    "cut": lambda data, where, _: data[: int(where * len(data))],
    "flip": _flip,
    "zero": _zero,
    "movie duration": _field(b"mvhd", 4 + 16),
    "track duration": _field(b"tkhd", 4 + 20),
    "media duration": _field(b"mdhd", 4 + 16),
    "media timescale": _field(b"mdhd", 4 + 12),
    "frame period": _field(b"stts", 4 + 8),
    "times of display": _field(b"ctts", 4 + 12),
    "no sync samples": _renamed(b"stss", b"free"),
    "other sync samples": _field(b"stss", 4 + 8),
    "no edit list": _renamed(b"elst", b"free"),
    "edit list": _edit,
    "frames of the file": _little(b"avih", 4 + 4 + 16),
    "frames of the stream": _little(b"vids", 32),
    "rate of the stream": _little(b"vids", 24),
    "no AVI index": _renamed(b"idx1", b"JUNK"),
    "no Matroska index": _renamed(b"\x1c\x53\xbb\x6b", b"\xec\x53\xbb\x6b"),
    "Matroska timescale": _field(b"\x2a\xd7\xb1", 4),
}
untruths = st.builds(
    Untruth,
    kind=st.sampled_from(sorted(KINDS)),
    where=st.floats(0, 1, exclude_max=True),
    value=st.one_of(st.sampled_from([0, 1, 2, 5, 1000, 2**31 - 1, 2**32 - 1]), st.integers(0, 2**16)),
)
