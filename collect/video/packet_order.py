"""Whether the packets of a stream prove in which order its pictures are shown.

A container gives packets in decoding order with the time at which each is shown; a codec says in its own data which
picture comes before which. If the two agree for every packet, a frame's place in presentation order is known without
decoding. If they do not, or if there is nothing to compare, only the decoder knows, and everything is decoded.

    H.264, HEVC         picture order counts, ranked by FFmpeg's own filter `dts2pts`
    MPEG-1, -2, -4      picture types: a B picture is shown at once, any other after the B pictures that follow it
    VP8, VP9            packets in order of presentation; those that show no picture do not count
    AV1, intra codecs   packets in order of presentation

AVI, MPEG-TS and all other containers but MP4 and Matroska prove nothing: their times are rounded, made up or missing.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from jaxtyping import Int64

if TYPE_CHECKING:
    VideoPacket = Packet[VideoStream]
else:
    VideoPacket = Packet  # generic in its stubs only

_TIMED_CONTAINERS = ("mp4", "matroska")
"""Containers that state when each packet is shown, as parts of FFmpeg's names for them."""
_ONE_BY_ONE = ("vp8", "vp9", "av1", "ffv1", "png")
"""Codecs, besides the purely intra ones, whose packets show pictures in their order."""
_BY_COUNT = ("h264", "hevc")
_BY_KIND = ("mpeg4", "mpeg1video", "mpeg2video")
_PROVING = (*_ONE_BY_ONE, *_BY_COUNT, *_BY_KIND)
_PADDING = 40
"""Packets from the start that are repeated after the end, because `dts2pts` looks ahead by up to 16 pictures."""
_MIN_PICTURE_BYTES = 10
"""MPEG-4 marks a frame that repeats the one before by a shorter packet; a decoder may return nothing for it."""


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of a stream's codec, whichever decoder it uses."""
    return stream.codec_context.codec.canonical_name


def is_shown(codec: str, data: bytes) -> bool | None:
    """Whether a packet of VP8 or VP9 shows a picture; None if its header makes no sense.

    Args:
        codec: FFmpeg's name of it; packets of other codecs count as shown.
        data: the packet.

    Source: RFC 6386, section 9.1; VP9 bitstream specification, section 6.2 and annex B.
    """
    if not data:
        return None
    if codec == "vp8":
        return bool(data[0] >> 4 & 1)
    if codec == "vp9":
        if data[0] >> 6 != 2:  # the frame marker
            return None
        if data[-1] & 0xE0 == 0xC0:  # a superframe: hidden pictures and the one that is shown
            return True
        is_profile_3 = data[0] >> 4 & 3 == 3
        bits = data[0] << 1 if is_profile_3 else data[0]  # of profile 3 a reserved bit follows
        shows_existing, shows_frame = bits >> 3 & 1, bits >> 1 & 1
        return bool(shows_existing or shows_frame)
    return True


def is_timed(container: str) -> bool:
    """Whether a container, by FFmpeg's name of it, states when each packet is shown."""
    return any(name in container.split(",") for name in _TIMED_CONTAINERS)


def proves_order(container: str, stream: VideoStream) -> bool:
    """Whether packets can prove the order of their pictures at all.

    Args:
        container: FFmpeg's name of the container format.
        stream: of it.
    """
    codec = stream.codec_context.codec
    return is_timed(container) and (codec.intra_only or codec.canonical_name in _PROVING)


def shown_times(stream: VideoStream, packets: Sequence[VideoPacket]) -> Int64[np.ndarray, " frame"] | None:
    """Presentation times of all pictures, ascending, if the packets prove them.

    Args:
        stream: of the packets, one that `proves_order`.
        packets: all of them, in decoding order.

    Returns:
        Times in the stream's time base; None if the order is not proved.
    """
    codec = codec_name(stream)
    times: list[int] = []
    data: list[bytes] = []
    hidden: set[int] = set()
    for packet in packets:
        content = bytes(packet)
        shows = is_shown(codec, content)
        if shows is None or packet.pts is None:
            return None
        if shows:
            times.append(packet.pts)
            data.append(content)
            if packet.is_discard:  # an edit list leaves it out; others may refer to it
                hidden.add(packet.pts)
    if not times or len(set(times)) < len(times) or times[0] != min(times):
        return None
    pts = np.array(times, dtype=np.int64)
    known, order = _own_order(stream, data)
    if order is None or not np.array_equal(np.argsort(pts[known]), np.argsort(order)):
        return None
    shown = sorted(set(times) - hidden)
    return np.array(shown, dtype=np.int64) if shown else None


def _own_order(
    stream: VideoStream, data: Sequence[bytes]
) -> tuple[Int64[np.ndarray, " known"], Int64[np.ndarray, " known"] | None]:
    """Which packets the codec can place, and their order; None if it does not say."""
    codec = codec_name(stream)
    everything = np.arange(len(data))
    if codec in _ONE_BY_ONE or stream.codec_context.codec.intra_only:
        return everything, everything
    if codec in _BY_COUNT:
        counts = [_n_pictures(stream, content) for content in data]
        # A packet that cannot be read is damaged; the others show whether the container's times are right.
        known = np.array([i for i, n in enumerate(counts) if n], dtype=np.int64)
        if max(counts) > 1 or len(known) < 0.5 * len(data):
            return everything, None
        found = [data[i] for i in known]
        if codec == "h264" and all(_is_idr(stream, content) for content in found):
            return known, np.arange(len(known))  # each starts again, and `dts2pts` cannot use it
        return known, _picture_order(stream, found)
    if codec in _BY_KIND:
        kinds = [_is_b_picture(codec, content) for content in data]
        known = np.array([i for i, kind in enumerate(kinds) if kind is not None], dtype=np.int64)
        if len(known) < 0.5 * len(data) or min(map(len, data)) < _MIN_PICTURE_BYTES:
            return everything, None
        return known, _order_by_kind([bool(kinds[i]) for i in known])
    return everything, None


def nal_units(extradata: bytes | None, codec: str, data: bytes) -> Iterator[bytes]:
    """The first bytes of each unit of an H.264 or HEVC packet, as MP4 and Matroska hold them, or with start codes."""
    if extradata and len(extradata) > 22 and extradata[0] == 1 and codec == "hevc":
        size = (extradata[21] & 3) + 1
    elif extradata and len(extradata) > 5 and extradata[0] == 1 and codec == "h264":
        size = (extradata[4] & 3) + 1
    else:
        at = data.find(b"\0\0\1")
        while at >= 0:
            yield data[at + 3 : at + 7]
            at = data.find(b"\0\0\1", at + 3)
        return
    at = 0
    while at + size < len(data):
        length = int.from_bytes(data[at : at + size], "big")
        if length == 0 or at + size + length > len(data):
            return
        yield data[at + size : at + size + 4]
        at += size + length


def _n_pictures(stream: VideoStream, data: bytes) -> int:
    """Pictures that begin in a packet of H.264 or HEVC."""
    codec, n = codec_name(stream), 0
    for unit in nal_units(stream.codec_context.extradata, codec, data):
        if codec == "h264":
            # The first macroblock of a slice is its first field; number 0 is written as a single 1.
            n += unit[0] & 31 in (1, 5) and len(unit) > 1 and unit[1] >= 0x80
        else:
            n += unit[0] >> 1 & 63 < 32 and len(unit) > 2 and unit[2] >= 0x80
    return n


def _is_idr(stream: VideoStream, data: bytes) -> bool:
    return any(unit[0] & 31 == 5 for unit in nal_units(stream.codec_context.extradata, "h264", data))


def _picture_order(stream: VideoStream, data: Sequence[bytes]) -> Int64[np.ndarray, " picture"] | None:
    """Rank of each picture by its picture order count, as numbers that ascend with it."""
    found: list[int | None] = []
    try:
        ranked = BitStreamFilterContext("dts2pts", stream)
        for i in range(len(data) + _PADDING):
            packet = av.Packet(data[i % len(data)])
            packet.dts, packet.duration, packet.time_base = i, 1, Fraction(1)
            found += [done.pts for done in ranked.filter(packet)]
        found += [done.pts for done in ranked.filter(None)]
    except FFmpegError:
        return None
    order = [place for place in found[: len(data)] if place is not None]
    if len(order) < len(data) or len(set(order)) < len(order):
        return None
    return np.array(order, dtype=np.int64)


def _is_b_picture(codec: str, data: bytes) -> bool | None:
    """Whether the only picture of a packet is a B picture; None if the packet has no picture or several.

    Source: ISO/IEC 14496-2, 6.2.5 (vop_coding_type); ISO/IEC 13818-2, 6.2.3 (picture_coding_type).
    """
    start = b"\0\0\1\xb6" if codec == "mpeg4" else b"\0\0\1\0"
    at = data.find(start)
    if at < 0 or at + 5 >= len(data) or data.find(start, at + 4) >= 0:
        return None
    return data[at + 4] >> 6 == 2 if codec == "mpeg4" else data[at + 5] >> 3 & 7 == 3


def _order_by_kind(is_b: Sequence[bool]) -> Int64[np.ndarray, " picture"]:
    """Place in presentation order of each picture."""
    place = np.empty(len(is_b), dtype=np.int64)
    n, held = 0, None
    for i, at_once in enumerate(is_b):
        if at_once:
            place[i] = n
            n += 1
            continue
        if held is not None:
            place[held] = n
            n += 1
        held = i
    if held is not None:
        place[held] = n
    return place


def is_reference(codec: str, extradata: bytes | None, data: bytes) -> bool:
    """Whether later pictures may refer to the picture of a packet; true if this is not known."""
    if codec == "h264":
        slices = [unit[0] for unit in nal_units(extradata, codec, data) if unit[0] & 31 in (1, 5)]
        return not slices or any(head >> 5 & 3 for head in slices)
    if codec in _BY_KIND:
        return _is_b_picture(codec, data) is not True
    return True
