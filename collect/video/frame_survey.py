"""What a stream shows when all of it is decoded: which frames, when, and which of them are damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64

from collect.video.packet_order import is_timed
from collect.video.picture_stream import PictureStream

MAX_KEPT_BYTES = 2**26
"""Decoded pictures are kept while they take no more than this, so that a small video is decoded once."""
_MOSTLY = 0.1
"""A stream with at least this share intact is not mostly damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """The frames of a stream, in presentation order."""

    intact: Bool[np.ndarray, " frame"]
    pts: Int64[np.ndarray, " frame"] | None
    """Presentation times in the stream's time base, ascending; None if the stream has none that can be right."""
    pictures: Int64[np.ndarray, " frame"]
    """Which of the decoder's pictures each frame is, counted as they come; -1 if it gives none."""
    n_packets: int
    n_left_out: int
    """Packets before the first frame, which a recording that begins between two key frames has."""
    is_strict: bool
    kept: dict[int, VideoFrame] = field(repr=False)
    """Frames by id, if all were kept."""

    @property
    def is_mostly_damaged(self) -> bool:
        """Whether hardly any of the packets gives an intact picture."""
        return int(self.intact.sum()) < max(1, round(_MOSTLY * self.n_packets))


def survey_stream(
    container: InputContainer, stream: VideoStream, proved_pts: Int64[np.ndarray, " frame"] | None, *, is_strict: bool
) -> Survey:
    """Decode everything.

    Args:
        container: just opened.
        stream: of it.
        proved_pts: times of all frames, if the packets prove them; then damaged frames have times too.
        is_strict: as for `PictureStream`.
    """
    decoding = PictureStream(container, stream, is_strict=is_strict)
    kept: dict[int, VideoFrame] = {}
    room = MAX_KEPT_BYTES
    for i, frame in enumerate(decoding.frames()):
        room -= sum(plane.buffer_size for plane in frame.planes)
        if room >= 0:
            kept[i] = frame
    if room < 0:
        kept = {}
    are_intact, said = decoding.intact(), decoding.pictures
    pts, pictures = _frames(decoding, are_intact, proved_pts, is_timed(container.format.name))
    intact = np.array([i >= 0 and are_intact[i] for i in pictures], dtype=np.bool_)
    return Survey(
        intact=intact,
        pts=pts,
        pictures=np.array(pictures, dtype=np.int64),
        n_packets=len(decoding.packet_pts),
        # If the places of lost pictures are known, none is left out.
        n_left_out=0
        if -1 in pictures
        else decoding.n_unseen_before(min((said[i].position for i in pictures), default=0)),
        is_strict=is_strict,
        kept={frame: kept[i] for frame, i in enumerate(pictures) if i in kept},
    )


def wanted_frames(container: InputContainer, stream: VideoStream, seen: Survey, ids: set[int]) -> dict[int, VideoFrame]:
    """Some intact frames by id: those kept, or decoded once more.

    Args:
        container: just opened.
        stream: of it.
        seen: the survey of it.
        ids: of the wanted frames.
    """
    if ids <= seen.kept.keys():
        return {i: seen.kept[i] for i in ids}
    frame_of = {int(seen.pictures[i]): i for i in ids}
    found: dict[int, VideoFrame] = {}
    decoding = PictureStream(container, stream, is_strict=seen.is_strict)
    for i, frame in enumerate(decoding.frames()):
        if i in frame_of:
            found[frame_of[i]] = frame
            if len(found) == len(ids):
                break
    return found


def _frames(
    decoding: PictureStream,
    are_intact: Sequence[bool],
    proved_pts: Int64[np.ndarray, " frame"] | None,
    has_times: bool,
) -> tuple[Int64[np.ndarray, " frame"] | None, list[int]]:
    """Times of the frames, and which picture each is, -1 for none."""
    given = [(i, picture.pts) for i, picture in enumerate(decoding.pictures)]
    shown = [pts for _, pts in given if pts is not None]
    ascends = len(shown) == len(given) and all(a < b for a, b in pairwise(shown))
    if proved_pts is not None and ascends and set(shown) <= set(proved_pts.tolist()):
        picture_of = {pts: i for i, pts in given}
        return proved_pts, [picture_of.get(int(pts), -1) for pts in proved_pts]
    if has_times and ascends and any(are_intact):
        picture_of = {pts: i for i, pts in given}
        times = sorted({*shown, *_lost_times(decoding)})
        return np.array(times, dtype=np.int64), [picture_of.get(pts, -1) for pts in times]
    # A recording that begins between two key frames begins with its first intact picture.
    first = next((i for i, is_intact in enumerate(are_intact) if is_intact), len(given))
    given = given[first:]
    shown = [pts for _, pts in given if pts is not None]
    if not given:
        return None, []
    if ascends:
        picture_of = {pts: i for i, pts in given}
        times = sorted({*shown, *(pts for pts in _lost_times(decoding) if pts > shown[0])})
        return np.array(times, dtype=np.int64), [picture_of.get(pts, -1) for pts in times]
    if len(shown) == len(given) and len(set(shown)) == len(shown):
        # The times are there but with the wrong pictures, for example if a container counts packets in decoding order.
        return np.sort(np.array(shown, dtype=np.int64)), [i for i, _ in given]
    return None, [i for i, _ in given]


def _lost_times(decoding: PictureStream) -> list[int]:
    """Times of the packets that should have given a picture and did not."""
    if not decoding.failed:
        return []  # packets that show nothing are not lost
    given = {picture.position for picture in decoding.pictures}
    times = [pts for position, pts in enumerate(decoding.packet_pts) if position not in given and pts is not None]
    return times if len(set(times)) == len(times) else []
