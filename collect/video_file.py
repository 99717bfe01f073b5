"""Frames of one video file, by id.

A frame's id is its index in presentation order among the frames that decode. Packets are read once; only groups of
pictures that hold a wanted frame are decoded, without the pictures that no other one refers to. Where a container does
not say when its packets are shown, everything is decoded instead. Rotation metadata is applied; times count from the
first frame. A file that is damaged where a wanted frame comes from is refused, never patched over. Audio is not read.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Float64, Int64, UInt8

from collect.errors import UserError

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # generic in its stubs only

NOMINAL_RATE = 30.0
"""Frames a second of a video that does not say; Perception Test's own rate."""

MIN_PRESENT = 0.9
"""A file with fewer of the frames that its header promises is damaged; a few missing at the end are common."""


class DecodeError(UserError):
    """A video file that cannot be decoded; the message names the file and the reason."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a video file's header says, which decoding may contradict."""

    frame_rate: float
    n_frames: int
    """0 where the header does not say."""
    height: int
    width: int


def probe(path: Path) -> Facts:
    """Read a video file's header without decoding; height and width are those before rotation.

    Raises:
        DecodeError: the file is missing or is not a video.
    """
    with _opened(path) as (_, stream):
        return Facts(
            frame_rate=_frame_rate(stream),
            n_frames=stream.frames,
            height=stream.codec_context.height,
            width=stream.codec_context.width,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Some frames of a video, and the times of all."""

    pixels: UInt8[np.ndarray, "frame height width 3"]
    ids: Int64[np.ndarray, " frame"]
    all_times_s: Float64[np.ndarray, " n_available"]
    frame_rate: float


Choose = Callable[[Float64[np.ndarray, " n_available"]], Int64[np.ndarray, " frame"]]
"""Times of all frames in seconds from the first one -> ids of the wanted ones, in any order and with repetitions."""


def read_frames(path: Path, choose: Choose) -> Frames:
    """Decode the frames that `choose` picks once it is told the times of all.

    Args:
        path: the video file.
        choose: times of all frames -> ids of the wanted ones, in any order and with repetitions.

    Raises:
        DecodeError: the file is missing, is not a video, has no frames, or is damaged where a frame is wanted.
    """
    with _opened(path) as (container, stream):
        frames = _decode_few(path, stream, _packets(path, container, stream), choose)
    return _decode_all(path, choose) if frames is None else frames


@contextmanager
def _opened(path: Path) -> Generator[tuple[InputContainer, VideoStream]]:
    """Open a file and its first video stream; whatever FFmpeg raises in the block becomes a `DecodeError`."""
    if not path.is_file():
        raise DecodeError(f"{path} does not exist: check the path of the video.")
    try:
        with av.open(path) as container:
            streams = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
            if not streams:
                raise _damaged(path, "it has no video stream")
            # One thread a video: videos are decoded side by side, and small frames do not repay handing them around.
            streams[0].codec_context.thread_count = 1
            yield container, streams[0]
    except (FFmpegError, OSError) as error:
        raise _damaged(path, f"{error.strerror or error}") from None


def _damaged(path: Path, reason: str) -> DecodeError:
    return DecodeError(f"{path} cannot be decoded as a video ({reason}): replace the file or remove it.")


def _packets(path: Path, container: InputContainer, stream: VideoStream) -> Sequence[VideoPacket]:
    """Packets in decoding order; where a file ends too early, those before its end."""
    packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_corrupt]
    if len(packets) < MIN_PRESENT * stream.frames:
        raise _damaged(path, f"it ends after {len(packets)} of its {stream.frames} frames")
    return packets


def _decode_few(
    path: Path,
    stream: VideoStream,
    packets: Sequence[VideoPacket],
    choose: Choose,
) -> Frames | None:
    """Decode the wanted groups of pictures only; None where the packets do not tell which those are."""
    shown = [packet.pts for packet in packets if not packet.is_discard]
    if (
        stream.time_base is None
        or not shown
        or None in shown
        or len(set(shown)) != len(shown)
        or any(packet.pts is None for packet in packets)
    ):
        return None
    order = np.sort(np.array(shown, dtype=np.int64))
    times_s = _times_s(order, stream.time_base)
    ids = choose(times_s)
    wanted_pts = {int(order[i]) for i in ids}
    images: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    for frame in _wanted_groups(path, stream, packets, wanted_pts):
        if frame.pts in wanted_pts:
            images[frame.pts] = _image(frame)
    if len(images) < len(wanted_pts) or len({image.shape for image in images.values()}) > 1:
        return None
    return Frames(
        pixels=np.stack([images[int(order[i])] for i in ids]),
        ids=ids,
        all_times_s=times_s,
        frame_rate=_frame_rate(stream),
    )


def _wanted_groups(
    path: Path, stream: VideoStream, packets: Sequence[VideoPacket], wanted_pts: set[int]
) -> Iterator[VideoFrame]:
    context = stream.codec_context
    skips_are_safe = context.name == "h264"  # there a picture that nothing refers to is marked as such in its header
    for start, stop in _group_ranges(packets, wanted_pts):
        shown_from = cast("int", packets[start].pts)
        for packet in (*packets[start:stop], None):
            if skips_are_safe and packet is not None:
                context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
            for frame in context.decode(packet):
                leads = frame.pts is None or frame.pts < shown_from  # refers to pictures before the range
                if frame.is_corrupt and (not leads or frame.pts in wanted_pts):
                    raise _damaged(path, f"its data is damaged {frame.time:.2f} s after the start")
                yield frame
        context.flush_buffers()


def _group_ranges(packets: Sequence[VideoPacket], wanted_pts: set[int]) -> list[tuple[int, int]]:
    """Ranges of packets to decode: from the key frame before a wanted frame up to that frame."""
    ranges: list[tuple[int, int]] = []
    keys: list[int] = []
    for position, packet in enumerate(packets):
        if packet.is_keyframe or not keys:
            keys.append(position)
        if packet.pts not in wanted_pts:
            continue
        # A frame shown before its own group's key frame refers to the group before.
        leads = packet.pts < cast("int", packets[keys[-1]].pts)
        start = keys[-2] if leads and len(keys) > 1 else keys[-1]
        if ranges and start < ranges[-1][1]:
            start = ranges.pop()[0]
        ranges.append((start, position + 1))
    return ranges


def _decode_all(path: Path, choose: Choose) -> Frames:
    """Decode everything: once to count what decodes, once more for the wanted frames."""
    with _opened(path) as (container, stream):
        pts = [frame.pts for frame in _good_frames(path, container, stream)]
        time_base, rate = stream.time_base, _frame_rate(stream)
    if not pts:
        raise _damaged(path, "no frame decodes")
    times_s = np.arange(len(pts)) / rate
    known = np.array([p for p in pts if p is not None], dtype=np.int64)
    if len(known) == len(pts) and time_base is not None and np.all(np.diff(known) > 0):
        times_s = _times_s(known, time_base)
    ids = choose(times_s)
    wanted = {int(i) for i in ids}
    images: dict[int, UInt8[np.ndarray, "height width 3"]] = {}
    with _opened(path) as (container, stream):
        for i, frame in enumerate(_good_frames(path, container, stream)):
            if i in wanted:
                images[i] = _image(frame)
    if len({image.shape for image in images.values()}) > 1:
        raise _damaged(path, "its frames change size")
    return Frames(pixels=np.stack([images[int(i)] for i in ids]), ids=ids, all_times_s=times_s, frame_rate=rate)


def _good_frames(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames in presentation order; damage is passed over at either end only, where a recording may be cut."""
    begun, gap = False, False
    for packet in container.demux(stream):
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except InvalidDataError:
            gap = begun
            continue
        for frame in frames:
            if frame.is_corrupt:
                gap = begun
                continue
            if gap:
                raise _damaged(path, "its data is damaged in the middle")
            begun = True
            yield frame


def _times_s(pts: Int64[np.ndarray, " frame"], time_base: Fraction) -> Float64[np.ndarray, " frame"]:
    return (pts - pts[0]) * time_base.numerator / time_base.denominator


def _frame_rate(stream: VideoStream) -> float:
    return float(stream.average_rate or stream.guessed_rate or NOMINAL_RATE)


def _image(frame: VideoFrame) -> UInt8[np.ndarray, "height width 3"]:
    image = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90)  # quarter turns counterclockwise
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
