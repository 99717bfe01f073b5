"""Decoding the wanted pictures of a stream whose order is known, and as few others as they need."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from collect.video.packet_order import VideoPacket, codec_name, is_shown
from collect.video.picture_stream import SILENT, undiscarded


def decode_wanted(
    stream: VideoStream, packets: Sequence[VideoPacket], wanted_pts: set[int]
) -> dict[int, VideoFrame] | None:
    """Decode some pictures, each from the key frame before it.

    Args:
        stream: just opened.
        packets: all of its packets, in decoding order, with presentation times that give the order of the pictures.
        wanted_pts: presentation times of the wanted pictures.

    Returns:
        The pictures by presentation time; None if anything is not as the packets say (a picture is damaged or missing,
        one that is marked as a key frame is not one, pictures come in another order), so that only decoding everything
        shows what there is.
    """
    if codec_name(stream) in SILENT:
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    found: dict[int, VideoFrame] = {}
    try:
        for start, stop in group_ranges(packets, wanted_pts):
            group = _decoded(stream, packets[start:stop], wanted_pts)
            if group is None:
                return None
            found |= group
    except FFmpegError:
        return None
    return found if len(found) == len(wanted_pts) else None


def _decoded(stream: VideoStream, packets: Sequence[VideoPacket], wanted_pts: set[int]) -> dict[int, VideoFrame] | None:
    """Decode packets from a key frame on; None if the pictures are not as the packets say."""
    context, codec = stream.codec_context, codec_name(stream)
    skips_are_safe = codec == "h264"  # there the header marks a picture that nothing refers to
    if any(packet.is_corrupt for packet in packets):
        return None
    begins = cast("int", packets[0].pts)
    shown: list[int] = []
    found: dict[int, VideoFrame] = {}
    for packet in (*map(undiscarded, packets), None):
        if skips_are_safe and packet is not None:
            context.skip_frame = "DEFAULT" if packet.pts in wanted_pts else "NONREF"
        for frame in context.decode(packet):
            if frame.pts is None:
                return None
            if frame.pts < begins:
                continue  # refers to pictures before the range
            if frame.is_corrupt or (not shown and not (frame.pts == begins and frame.key_frame)):
                return None
            shown.append(frame.pts)
            if frame.pts in wanted_pts:
                found[frame.pts] = frame
    context.flush_buffers()
    if any(earlier >= later for earlier, later in pairwise(shown)):
        return None
    if not skips_are_safe:
        # Other pictures may have referred to a picture that is silently missing.
        due = [cast("int", packet.pts) for packet in packets if is_shown(codec, bytes(packet))]
        if {pts for pts in due if pts >= begins} != set(shown):
            return None
    return found


def group_ranges(packets: Sequence[VideoPacket], wanted_pts: set[int]) -> list[tuple[int, int]]:
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
