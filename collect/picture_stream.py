"""All pictures of a stream as the decoder gives them, each marked as intact or damaged.

A decoder goes on after an error: it leaves a picture out, or fills holes with what it guesses. Whatever refers to such
a picture is spoilt as well, without a sign of it, up to the next key frame; and so is what comes before the first key
frame of a recording that begins between two. Here all of those count as damaged.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from av.container import InputContainer
from av.error import EOFError as EndOfFileError
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from collect.packet_order import VideoPacket, codec_name, is_reference, is_shown

logger = logging.getLogger(__name__)

_SELF_STARTING = ("h264", "hevc")
"""Decoders that give nothing, or what they mark as corrupt, until a picture can be whole."""
SILENT = ("hevc", "mjpeg")
"""Codecs of which FFmpeg fills in damaged pictures without a sign of it, unless it is told to fail."""
_MAX_FLUSHES = 64
"""Errors at the end of the stream after which nothing more is expected of a decoder."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One decoded picture."""

    frame: VideoFrame
    position: int | None
    """Of its packet in decoding order; None where the decoder does not say."""
    is_intact: bool
    is_before_keys: bool = False
    """Whether the only thing against it is that no key frame came before."""


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """Packets with data, in decoding order; where a file is damaged or ends too early, those before."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # AVI writes empty ones where a picture stays for longer
                yield packet
    except FFmpegError as error:
        logger.debug("%s: reading ends early: %s", container.name, error)


class PictureStream:
    """Decodes a stream from start to end, once.

    `pictures` gives what decodes, in presentation order; then `packet_pts` and `failed` say what there was to decode.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, *, is_strict: bool = True) -> None:
        """Prepare.

        Args:
            container: just opened.
            stream: of it, not yet decoded.
            is_strict: whether packets that are marked as damaged and pictures that a decoder merely complains about
                count as damaged, as they should; some writers never give others.
        """
        self.packet_pts: list[int | None] = []
        """Presentation time of each packet in decoding order; None where it has none or shows no picture."""
        self.failed: set[int] = set()
        """Positions of packets that did not decode."""
        self._container, self._stream, self._is_strict = container, stream, is_strict
        self._codec = codec_name(stream)
        self._is_intra = stream.codec_context.codec.intra_only
        self._losses: list[int] = [] if self._codec in _SELF_STARTING or self._is_intra else [-1]
        self._is_reference: list[bool] = []

    def pictures(self) -> Iterator[Picture]:
        """All pictures in presentation order."""
        context = self._stream.codec_context
        context.copy_opaque = True
        if self._is_strict and self._codec in SILENT:
            context.options = {**context.options, "err_detect": "explode"}
        for position, packet in enumerate(read_packets(self._container, self._stream)):
            self._note(packet)
            packet.opaque = position
            if packet.is_corrupt and self._is_strict:
                self._lose(position)
                continue
            try:
                frames = context.decode(packet)
            except FFmpegError:
                self._lose(position)
                continue
            for frame in frames:
                yield self._judged(frame)
        for _ in range(_MAX_FLUSHES):
            try:
                frames = context.decode(None)
            except EndOfFileError:
                break
            except FFmpegError:
                continue
            for frame in frames:
                yield self._judged(frame)
            if not frames:
                break

    def _note(self, packet: VideoPacket) -> None:
        context = self._stream.codec_context
        data = bytes(packet)
        counts = not packet.is_discard and is_shown(self._codec, data) is not False
        self.packet_pts.append(packet.pts if counts else None)
        self._is_reference.append(not self._is_intra and is_reference(self._codec, context.extradata, data))

    def _lose(self, position: int) -> None:
        self.failed.add(position)
        if self._is_reference[position]:
            self._losses.append(position)

    def _judged(self, frame: VideoFrame) -> Picture:
        position = frame.opaque if isinstance(frame.opaque, int) else None
        if frame.key_frame and not frame.is_corrupt:
            # What is decoded after a key frame refers to nothing before it; a key frame itself refers to nothing.
            self._losses = [loss for loss in self._losses if position is not None and loss > position]
            return Picture(frame=frame, position=position, is_intact=position not in self.failed)
        spoilt = [loss for loss in self._losses if position is None or loss < position]
        if frame.is_corrupt and position is not None:
            self._lose(position)
        is_intact = not spoilt and not frame.is_corrupt and position not in self.failed
        return Picture(
            frame=frame,
            position=position,
            is_intact=is_intact,
            is_before_keys=spoilt == [-1] and not frame.is_corrupt and position not in self.failed,
        )
