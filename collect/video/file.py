"""Frames of one video file, by id.

A frame's id is its place in presentation order among the pictures that the file shows, from 0. If the packets prove
that order (`collect.video.packet_order`), only groups of pictures that hold a wanted frame are decoded. Otherwise
everything is decoded, and the order is the decoder's. What a header says (counts, durations, key frames, times) is a
hint and never a reason to refuse. A damaged picture keeps its id, is never used, and is named in the log; a file is
refused if no picture is intact. The display matrix is applied; times count from the first frame. Audio is not read.
"""

import functools
import logging
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, cast

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Float64, Int64, UInt8

from collect.errors import UserError
from collect.printable import printable
from collect.video.display import orientation, shown_image
from collect.video.encryption import is_encrypted
from collect.video.frame_survey import Survey, survey_stream, wanted_frames
from collect.video.group_decode import decode_wanted
from collect.video.hardware import is_for_gpu
from collect.video.packet_order import VideoPacket, proves_order, shown_times
from collect.video.picture_stream import PictureStream, read_packets

logger = logging.getLogger(__name__)

NOMINAL_RATE = 30.0
"""Frames per second of a video that does not say; Perception Test's own rate."""
MAX_PIXELS = 2**26
"""Most pixels of a frame, 8192 squared: this bounds the memory that a header can make a decoder allocate."""
MAX_HELD_BYTES = 2**30
"""Packets of a larger file are not held in memory; it is decoded from start to end."""
_OPTIONS = {"protocol_whitelist": "file", "max_pixels": str(MAX_PIXELS)}
"""A playlist with a video's name must not lead elsewhere."""
MANY_MISSING = 0.9
"""A file with less than this share of the frames that its header promises is named in the log."""


class DecodeError(UserError):
    """A video file that cannot be decoded; the message names the file and the reason."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a video file's header says, which decoding may contradict, and the size of its first picture."""

    frame_rate: float
    n_frames: int
    """0 if the header does not say."""
    height: int
    """Of a frame in pixels, in display orientation."""
    width: int


def probe(path: Path) -> Facts:
    """Read a video file's header, and its first picture to find its orientation.

    Raises:
        DecodeError: the file is missing or is not a video.
    """
    with _opened(path) as (container, stream):
        height, width = stream.codec_context.height, stream.codec_context.width
        frame = _first_frame(container, stream)
        if frame is not None:
            height, width = orientation(frame).size(frame.height, frame.width)
        return Facts(frame_rate=_frame_rate(stream), n_frames=stream.frames, height=height, width=width)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Some frames of a video, and the times of all."""

    pixels: UInt8[np.ndarray, "frame height width 3"]
    ids: Int64[np.ndarray, " frame"]
    all_times_s: Float64[np.ndarray, " n_available"]
    """Of every picture that the file shows, damaged ones included."""
    frame_rate: float


Choose = Callable[[Float64[np.ndarray, " n_available"]], Int64[np.ndarray, " frame"]]
"""Times of the frames to choose from, in seconds from the video's first one -> indices of the wanted ones, in any order
and with repetitions."""
WhenDamaged = Literal["choose again", "take the nearest", "refuse"]
"""What happens to wanted frames that are damaged: all are chosen again from the intact ones, each is replaced by the
intact one that is nearest to it, or the file is refused."""


def read_frames(
    path: Path,
    choose: Choose,
    *,
    n_cut: int | None = None,
    when_damaged: WhenDamaged = "choose again",
    hwaccel: HWAccel | None = None,
) -> Frames:
    """Decode the frames that `choose` picks from the times of all.

    Args:
        path: the video file.
        choose: times of all frames -> ids of the wanted ones, in any order and with repetitions.
        n_cut: only this many frames from the start are there to choose from; None means all.
        when_damaged: what happens to wanted frames that are damaged.
        hwaccel: decodes whole groups of pictures, if it gives the same as a core; a file that needs a closer look is
            decoded without it, and so is one that it has no memory for.

    Raises:
        DecodeError: the file is missing, is not a video, is encrypted, has no intact picture (before the cut), or a
            wanted frame is damaged and `when_damaged` refuses it.
    """
    with _opened(path, hwaccel) as (container, stream):
        pts = None
        if proves_order(container.format.name, stream):
            packets = _held_packets(container, stream)
            pts = shown_times(stream, packets)
            _note_missing(path, stream, len(packets), any(packet.is_discard for packet in packets))
            if pts is not None and stream.time_base is not None:
                times_s = _times_s(pts, stream.time_base)
                ids = choose(times_s[:n_cut])
                found = decode_wanted(stream, packets, {int(pts[i]) for i in ids})
                if found is not None:
                    pixels = _stack(path, [found[int(pts[i])] for i in ids])
                    return Frames(pixels=pixels, ids=ids, all_times_s=times_s, frame_rate=_frame_rate(stream))
    return _read_all(path, pts, choose, n_cut, when_damaged)


def each_frame(path: Path) -> Generator[tuple[float, VideoFrame]]:
    """All frames that a file shows, in order, with their times in seconds from the first; for playing, not measuring.

    A damaged picture is given as FFmpeg mends it. Times are never before those of earlier frames.

    Raises:
        DecodeError: the file is missing, is not a video, or is encrypted.
    """
    with _opened(path) as (container, stream):
        period_s = 1.0 / _frame_rate(stream)
        first_s, last_s = None, -period_s
        for frame in PictureStream(container, stream, is_strict=False).frames():
            time_s = None if frame.pts is None or stream.time_base is None else float(frame.pts * stream.time_base)
            if first_s is None:
                first_s = 0.0 if time_s is None else time_s
            last_s = last_s + period_s if time_s is None else max(time_s - first_s, last_s)
            yield last_s, frame


def _read_all(
    path: Path, pts: Int64[np.ndarray, " frame"] | None, choose: Choose, n_cut: int | None, when_damaged: WhenDamaged
) -> Frames:
    """Decode everything to see what there is, then the wanted frames unless they were kept."""
    seen = _survey(path, pts)
    with _opened(path) as (_, stream):
        rate, time_base = _frame_rate(stream), stream.time_base
    if not seen.intact[:n_cut].any():
        before = " before its cut" if seen.intact.any() else ""
        raise _refusal(path, f"none of its {seen.n_packets} packets gives an intact picture{before}")
    times_s = np.arange(len(seen.intact)) / rate
    if seen.pts is not None and time_base is not None:
        times_s = _times_s(seen.pts, time_base)
    ids = _chosen(path, choose, times_s[:n_cut], seen.intact[:n_cut], when_damaged)
    _note_damage(path, seen)
    with _opened(path) as (container, stream):
        found = wanted_frames(container, stream, seen, {int(i) for i in ids})
    return Frames(pixels=_stack(path, [found[int(i)] for i in ids]), ids=ids, all_times_s=times_s, frame_rate=rate)


def _survey(path: Path, pts: Int64[np.ndarray, " frame"] | None) -> Survey:
    with _opened(path) as (container, stream):
        seen = survey_stream(container, stream, pts, is_strict=True)
    if seen.is_mostly_damaged:
        # Some writers mark all their packets as damaged, or break a rule in each: then FFmpeg's pictures are accepted.
        with _opened(path) as (container, stream):
            seen = survey_stream(container, stream, pts, is_strict=False)
    return seen


def _chosen(
    path: Path,
    choose: Choose,
    times_s: Float64[np.ndarray, " frame"],
    intact: Bool[np.ndarray, " frame"],
    when_damaged: WhenDamaged,
) -> Int64[np.ndarray, " chosen"]:
    """Ids of the wanted frames, all intact."""
    ids = choose(times_s)
    lost = ids[~intact[ids]]
    if not len(lost):
        return ids
    if when_damaged == "refuse":
        raise DecodeError(f"Frame {int(lost[0])} of {_name(path)} is damaged: replace the file or ask for another.")
    usable = np.flatnonzero(intact)
    if when_damaged == "choose again":
        return usable[choose(times_s[usable])]
    return np.array([usable[np.abs(usable - i).argmin()] for i in ids], dtype=np.int64)


@contextmanager
def _opened(path: Path, hwaccel: HWAccel | None = None) -> Generator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream; whatever FFmpeg raises in the block becomes a `DecodeError`."""
    if not path.is_file():
        raise DecodeError(f"{_name(path)} does not exist: check the path of the video.")
    if not path.stat().st_size:
        raise _refusal(path, "it is empty: it has 0 bytes")
    try:
        with ExitStack() as held:
            container = held.enter_context(_open(path))
            stream = _shown_stream(path, container)
            faster = _open_on_gpu(path, hwaccel) if hwaccel is not None and is_for_gpu(stream) else None
            if faster is not None:
                container = held.enter_context(faster)
                stream = _shown_stream(path, container)
            yield container, stream
    except (FFmpegError, OSError) as error:
        raise _refusal(path, f"{error.strerror or error}") from None


def _open(path: Path, hwaccel: HWAccel | None = None) -> InputContainer:
    # Titles come in any encoding.
    return av.open(path.resolve(), options=_OPTIONS, metadata_errors="replace", hwaccel=hwaccel)


def _open_on_gpu(path: Path, hwaccel: HWAccel) -> InputContainer | None:
    try:
        return _open(path, hwaccel)
    except FFmpegError as error:
        _warn_of_gpu(error.strerror or str(error))
        return None


@functools.cache
def _warn_of_gpu(reason: str) -> None:
    logger.warning(
        "the GPU does not decode some videos (%s): processor cores do. Fewer --workers need less memory", reason
    )


def _shown_stream(path: Path, container: InputContainer) -> VideoStream:
    """The video stream of a file that was just opened, ready to be decoded."""
    streams = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
    if is_encrypted(path, container):
        raise DecodeError(f"{_name(path)} is encrypted: decrypt it, or remove it from the folder.")
    if not streams:
        has = "only sound" if container.streams.audio else "nothing that is shown"
        raise _refusal(path, f"it has no video stream, {has}")
    context = cast("VideoCodecContext | None", streams[0].codec_context)
    if context is None:  # whatever PyAV's types say
        raise _refusal(path, "its video stream does not say in which format it is")
    if context.height * context.width > MAX_PIXELS:
        raise _refusal(path, f"its frames are {context.width} × {context.height}, more than {MAX_PIXELS} pixels")
    # One thread per video: videos are decoded in parallel, and for small frames more threads do not pay off.
    context.thread_count = 1
    context.options = {"max_pixels": str(MAX_PIXELS)}
    return streams[0]


def _refusal(path: Path, reason: str) -> DecodeError:
    return DecodeError(f"{_name(path)} cannot be decoded as a video ({reason}): replace the file or remove it.")


def _name(path: Path) -> str:
    return printable(path, 1000)


def _held_packets(container: InputContainer, stream: VideoStream) -> list[VideoPacket]:
    """All packets in decoding order; none if there are too many to hold."""
    held: list[VideoPacket] = []
    n_bytes = 0
    for packet in read_packets(container, stream):
        held.append(packet)
        n_bytes += packet.size
        if n_bytes > MAX_HELD_BYTES:
            return []
    return held


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    try:
        return next(iter(container.decode(stream)), None)
    except FFmpegError:
        return None


def _note_missing(path: Path, stream: VideoStream, n_packets: int, is_edited: bool) -> None:
    if n_packets and not is_edited and n_packets < MANY_MISSING * stream.frames:
        logger.warning("%s: its header counts %d frames, %d are there", _name(path), stream.frames, n_packets)


def _note_damage(path: Path, seen: Survey) -> None:
    if seen.n_left_out:
        logger.warning("%s: it begins with %d packets that show no whole picture", _name(path), seen.n_left_out)
    lost = np.flatnonzero(~seen.intact)
    if not len(lost):
        return
    runs = np.split(lost, np.flatnonzero(np.diff(lost) > 1) + 1)
    words = [f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    some = ", ".join(words[:8]) + (", ..." if len(words) > 8 else "")
    logger.warning(
        "%s: %d of its %d frames are damaged and passed over: %s", _name(path), len(lost), len(seen.intact), some
    )


def _stack(path: Path, frames: list[VideoFrame]) -> UInt8[np.ndarray, "frame height width 3"]:
    """The frames as they are shown; if a stream changes size, in the size of the first."""
    images: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    for frame in frames:
        if id(frame) not in images:
            shape = next(iter(images.values())).shape if images else None
            images[id(frame)] = shown_image(frame, None if shape is None else (shape[0], shape[1]))
    if len({orientation(frame).size(frame.height, frame.width) for frame in frames}) > 1:
        logger.warning("%s: its frames change size; they are given in that of the first one taken", _name(path))
    if not all(orientation(frame).is_exact for frame in frames):
        logger.warning("%s: is turned by other than quarter turns; the nearest of these is applied", _name(path))
    return np.stack([images[id(frame)] for frame in frames])


def _times_s(pts: Int64[np.ndarray, " frame"], time_base: Fraction) -> Float64[np.ndarray, " frame"]:
    return (pts - pts[0]) * time_base.numerator / time_base.denominator


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or NOMINAL_RATE)
