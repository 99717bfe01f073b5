"""All pictures of a stream as the decoder gives them, each marked as intact or damaged.

A decoder continues after an error: it leaves a picture out, or fills holes with guesses. Every picture that refers to
    such a picture is spoilt too, without any sign, up to the next key frame. So is everything before the first key
    frame of a recording that begins between two. All of these count as damaged here.
"""

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from av.container import InputContainer
from av.error import EOFError as EndOfFileError
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from collect.video.packet_order import VideoPacket, codec_name, is_reference, is_shown

logger = logging.getLogger(__name__)

_SELF_STARTING = ("h264", "hevc")
"""Decoders that return nothing, or pictures marked as corrupt, until a picture can be complete."""
SILENT = ("hevc", "mjpeg")
"""Codecs whose damaged pictures FFmpeg fills in without any sign, unless an option makes it fail."""
_MAX_FLUSHES = 64
"""Errors at the end of the stream after which nothing more is expected of a decoder."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What the decoder says about one picture."""

    pts: int | None
    position: int
    """Position of its packet in decoding order, or of the packet before it if the decoder does not say."""
    is_key: bool
    is_corrupt: bool
    is_left_out: bool
    """Whether an edit list leaves it out: it is decoded because others refer to it, but not shown."""


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Packets with data, in decoding order; if a file is damaged or ends too early, those before that place."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # AVI writes empty ones if a picture stays longer
                yield packet
    except FFmpegError as error:
        logger.debug("%s: reading ends early: %s", container.name, error)


def undiscarded(packet: VideoPacket) -> VideoPacket:
    """A packet whose picture the decoder returns although an edit list leaves it out, so that it can be judged."""
    if not packet.is_discard:
        return packet
    copy = cast("VideoPacket", Packet(bytes(packet)))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    return copy


class PictureStream:
    """Decodes a stream from start to end, once.

    `frames` gives the pictures that decode, in presentation order; afterwards the attributes say what there was.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, is_strict: bool = True) -> None:
        """Prepare.

        Args:
            container: just opened.
            stream: of it, not yet decoded.
            is_strict: whether packets that are marked as damaged, and pictures that a decoder merely complains about,
                count as damaged. They should, but some writers produce nothing else.
        """
        self._pictures: list[Picture] = []
        self._left_out: set[int] = set()
        self.packet_pts: list[int | None] = []
        """Presentation time of each packet in decoding order; None if it has none or shows no picture."""
        self.failed: set[int] = set()
        """Positions of packets that did not decode."""
        self._container, self._stream, self._is_strict = container, stream, is_strict
        self._codec = codec_name(stream)
        self._is_intra = stream.codec_context.codec.intra_only
        self._is_reference: list[bool] = []

    def frames(self) -> Iterator[VideoFrame]:
        """All pictures in presentation order, whatever their state."""
        context = self._stream.codec_context
        context.copy_opaque = True
        if self._is_strict and self._codec in SILENT:
            context.options = {**context.options, "err_detect": "explode"}
        for position, packet in enumerate(read_packets(self._container, self._stream)):
            self._note_packet(packet)
            if packet.is_discard:
                self._left_out.add(position)
            if packet.is_corrupt and self._is_strict:
                self.failed.add(position)
                continue
            given = undiscarded(packet)
            given.opaque = position
            try:
                frames = context.decode(given)
            except FFmpegError:
                self.failed.add(position)
                continue
            yield from self._noted(frames)
        for _ in range(_MAX_FLUSHES):
            try:
                frames = context.decode(None)
            except EndOfFileError:
                break
            except FFmpegError:
                continue
            yield from self._noted(frames)
            if not frames:
                break

    @property
    def pictures(self) -> list[Picture]:
        """What the decoder said about each frame."""
        return [picture for picture in self._pictures if not picture.is_left_out]

    def n_unseen_before(self, position: int) -> int:
        """Packets before one in decoding order that no edit list leaves out."""
        return sum(earlier not in self._left_out for earlier in range(position))

    def intact(self) -> list[bool]:
        """Whether each of the frames is intact."""
        losses = {picture.position for picture in self._pictures if picture.is_corrupt} | self.failed
        # A picture that nothing refers to spoils no other.
        spoiling = sorted(position for position in losses if self._is_reference[position])
        found = self._unspoilt(losses, spoiling if self._starts_itself else [-1, *spoiling])
        # For a stream without a single key frame, such as one that refreshes bit by bit, FFmpeg's pictures are
        # accepted.
        return found if any(found) else self._unspoilt(losses, spoiling)

    @property
    def _starts_itself(self) -> bool:
        return self._codec in _SELF_STARTING or self._is_intra

    def _unspoilt(self, losses: set[int], spoiling: list[int]) -> list[bool]:
        """Whether each frame is undamaged, and so is everything back to the last key frame shown before it."""
        found: list[bool] = []
        key = -2
        for picture in self._pictures:
            is_whole = picture.position not in losses
            if picture.is_key and is_whole:
                key = max(key, picture.position)
            # A picture builds on nothing before a key frame that is both shown and decoded before it.
            since = min(key, picture.position)
            if not picture.is_left_out:
                found.append(is_whole and bisect_left(spoiling, picture.position) == bisect_left(spoiling, since))
        return found

    def _note_packet(self, packet: VideoPacket) -> None:
        data = bytes(packet)
        counts = not packet.is_discard and is_shown(self._codec, data) is not False
        self.packet_pts.append(packet.pts if counts else None)
        extradata = self._stream.codec_context.extradata
        self._is_reference.append(not self._is_intra and is_reference(self._codec, extradata, data))

    def _noted(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            before = self._pictures[-1].position if self._pictures else 0
            position = frame.opaque if isinstance(frame.opaque, int) else before
            picture = Picture(
                pts=frame.pts,
                position=position,
                is_key=frame.key_frame,
                is_corrupt=frame.is_corrupt,
                is_left_out=position in self._left_out,
            )
            self._pictures.append(picture)
            if not picture.is_left_out:
                yield frame
