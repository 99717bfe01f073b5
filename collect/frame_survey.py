"""What a stream shows when all of it is decoded: which frames, when, and which of them are damaged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64

from collect.picture_stream import Picture, PictureStream

MAX_KEPT_BYTES = 2**26
"""Decoded pictures are kept while they take no more than this, so that a small video is decoded once."""
_MOSTLY = 0.1
"""A stream of which this share is intact is not mostly damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """The frames of a stream, in presentation order."""

    intact: Bool[np.ndarray, " frame"]
    pts: Int64[np.ndarray, " frame"] | None
    """Presentation times in the stream's time base, ascending; None where the stream has none that can be right."""
    pictures: Int64[np.ndarray, " frame"]
    """Which of the decoder's pictures each frame is, counted as they come; -1 where it gives none."""
    n_packets: int
    is_strict: bool
    kept: dict[int, VideoFrame] = field(repr=False)
    """Frames by id, if all were kept."""

    @property
    def is_mostly_damaged(self) -> bool:
        """Whether hardly any of the packets gives an intact picture."""
        return int(self.intact.sum()) < max(1, round(_MOSTLY * self.n_packets))


@dataclass(frozen=True, kw_only=True)
class _Seen:
    pts: int | None
    position: int | None
    is_intact: bool
    is_before_keys: bool


def survey_stream(
    container: InputContainer, stream: VideoStream, proved_pts: Int64[np.ndarray, " frame"] | None, *, is_strict: bool
) -> Survey:
    """Decode everything.

    Args:
        container: just opened.
        stream: of it.
        proved_pts: times of all frames, where the packets prove them; then damaged frames have theirs as well.
        is_strict: as for `PictureStream`.
    """
    decoding = PictureStream(container, stream, is_strict=is_strict)
    seen: list[_Seen] = []
    kept: dict[int, VideoFrame] = {}
    room = MAX_KEPT_BYTES
    for i, picture in enumerate(decoding.pictures()):
        seen.append(_facts(picture))
        room -= sum(plane.buffer_size for plane in picture.frame.planes)
        if room >= 0:
            kept[i] = picture.frame
    if room < 0:
        kept = {}
    if not any(one.is_intact for one in seen):
        # A stream without a single key frame, such as one that refreshes bit by bit, is what FFmpeg makes of it.
        seen = [replace(one, is_intact=one.is_intact or one.is_before_keys) for one in seen]
    pts, pictures = _frames(seen, decoding, proved_pts)
    intact = np.array([i >= 0 and seen[i].is_intact for i in pictures], dtype=np.bool_)
    return Survey(
        intact=intact,
        pts=pts,
        pictures=np.array(pictures, dtype=np.int64),
        n_packets=len(decoding.packet_pts),
        is_strict=is_strict,
        kept={frame: kept[i] for frame, i in enumerate(pictures) if i in kept},
    )


def wanted_frames(container: InputContainer, stream: VideoStream, seen: Survey, ids: set[int]) -> dict[int, VideoFrame]:
    """Some intact frames by id: those kept, or decoded once more.

    Args:
        container: just opened.
        stream: of it.
        seen: what was seen in it.
        ids: of the wanted frames.
    """
    if ids <= seen.kept.keys():
        return {i: seen.kept[i] for i in ids}
    frame_of = {int(seen.pictures[i]): i for i in ids}
    found: dict[int, VideoFrame] = {}
    for i, picture in enumerate(_again(container, stream, seen)):
        if i in frame_of:
            found[frame_of[i]] = picture.frame
            if len(found) == len(ids):
                break
    return found


def _again(container: InputContainer, stream: VideoStream, seen: Survey) -> Iterator[Picture]:
    return PictureStream(container, stream, is_strict=seen.is_strict).pictures()


def _facts(picture: Picture) -> _Seen:
    return _Seen(
        pts=picture.frame.pts,
        position=picture.position,
        is_intact=picture.is_intact,
        is_before_keys=picture.is_before_keys,
    )


def _frames(
    seen: Sequence[_Seen], decoding: PictureStream, proved_pts: Int64[np.ndarray, " frame"] | None
) -> tuple[Int64[np.ndarray, " frame"] | None, list[int]]:
    """Times of the frames, and which picture each is, -1 for none."""
    first = next((i for i, one in enumerate(seen) if one.is_intact), len(seen))
    given = [(i, one.pts) for i, one in enumerate(seen)]
    shown = [pts for _, pts in given if pts is not None]
    ascends = len(shown) == len(given) and all(a < b for a, b in pairwise(shown))
    if proved_pts is not None and ascends and set(shown) <= set(proved_pts.tolist()):
        picture_of = {pts: i for i, pts in given}
        return proved_pts, [picture_of.get(int(pts), -1) for pts in proved_pts]
    # A recording that begins between two key frames begins with its first intact picture.
    given = given[first:]
    shown = [pts for _, pts in given if pts is not None]
    if not given:
        return None, []
    if ascends:
        picture_of = {pts: i for i, pts in given}
        times = sorted({*shown, *_lost_times(seen, decoding, shown[0])})
        return np.array(times, dtype=np.int64), [picture_of.get(pts, -1) for pts in times]
    if len(shown) == len(given) and len(set(shown)) == len(shown):
        # The times are there but with the wrong pictures, as where a container counts packets in decoding order.
        return np.sort(np.array(shown, dtype=np.int64)), [i for i, _ in given]
    return None, [i for i, _ in given]


def _lost_times(seen: Sequence[_Seen], decoding: PictureStream, first: int) -> list[int]:
    """Times of the packets that should have given a picture after the first and did not."""
    if not decoding.failed:
        return []  # packets that show nothing are no loss
    given = {one.position for one in seen}
    times = [pts for position, pts in enumerate(decoding.packet_pts) if position not in given and pts is not None]
    return [pts for pts in times if pts > first] if len(set(times)) == len(times) else []
