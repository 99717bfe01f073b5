"""Clips and stills of a run's videos: made when they are first looked at, and kept up to a number of bytes.

    clips/ID.mp4        H.264 that every browser plays: all frames with their own times, at most 480 pixels high;
                        the video's own pictures, where they are that already
    clips/ID.json       its sentinel: the file that it was made from; a clip without one was not finished
    stills/ID/T.jpg     the first frame of time step T, as the model was given it
    stills/ID/made.json the sentinel of a video's stills

Both show the whole frame in display orientation, so that boxes in fractions of the frame fit them. What cannot be
decoded has a sentinel that says why, and is not tried again until the video's file changes.
"""

from __future__ import annotations

import io
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from browse.gathering.opened import OpenedRun
from browse.names import part_of
from collect.artefact.folder import TEMPORARY_SUFFIX, read_object, write_atomic, write_json
from collect.artefact.inside import is_relative
from collect.errors import UserError
from collect.printable import printable
from collect.reading import VideoRecord
from collect.video.decode import decode_frames
from collect.video.display import AS_STORED, orientation, shown_image
from collect.video.file import DecodeError, each_frame

log = logging.getLogger(__name__)

HIGHEST_PX = 480
KEY_FRAME_EVERY = 12
"""Frames: how far a browser has to decode to show any single one."""
MOST_DECODED_PX = 20_000_000
"""Pixels from a key frame to any frame of a video that is copied: decoded in some tens of milliseconds."""
CLOCK = Fraction(1, 90_000)
QUALITY = "25"
"""Constant rate factor of x264; 18 is nearly lossless, 28 is visibly coarse."""
JPEG_QUALITY = 85
SENTINEL = "made.json"
_OPTIONS = {
    "preset": "veryfast",
    "profile": "baseline",
    "crf": QUALITY,
    "g": str(KEY_FRAME_EVERY),
    "threads": "1",
}
_MOVFLAGS = {"movflags": "+faststart"}
Pictures = dict[int, np.ndarray[Any, np.dtype[np.uint8]]]
"""Frames as they are shown [height, width, 3], by id."""


class Media:
    """The clips and stills of a run.

    Args:
        run: gives the run as it is now.
        folder: where they are kept.
        most_bytes: how much is kept; what was looked at longest ago is removed first.
    """

    def __init__(self, run: Callable[[], OpenedRun], folder: Path, *, most_bytes: int) -> None:
        self._run = run
        self.folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._kept: dict[str, int] | None = None
        self._videos: tuple[OpenedRun, Mapping[str, VideoRecord]] | None = None

    def find(self, name: str) -> tuple[Path, str] | None:
        """A file, made if it is not there: the folder that it must not lead out of, and its name there.

        Args:
            name: such as `clips/video_1.mp4`, without the `media/` in front.
        """
        if not is_relative(name):
            return None
        match name.split("/"):
            case ["clips", file] if file.endswith(".mp4"):
                return self._made(f"clips/{file}", file.removesuffix(".mp4"), self._make_clip)
            case ["stills", part, file] if file.removesuffix(".jpg").isdigit() and file.endswith(".jpg"):
                return self._made(f"stills/{part}/{file}", part, self._make_stills)
            case ["features", part, *rest] if rest:
                run = self._run()
                sae = next((sae for sae in run.sae_names if part_of(sae) == part), None)
                return None if sae is None else (run.folder / "features" / sae / "media", "/".join(rest))
            case _:
                return None

    def make(self, video_id: str) -> bool:
        """Make the clip and the stills of a video, decoding it once where it can be, and say whether there are both."""
        part, pictures = part_of(video_id), Pictures()
        clip = self._made(f"clips/{part}.mp4", part, partial(self._make_clip, pictures=pictures))
        first = self._made(f"stills/{part}/0.jpg", part, partial(self._make_stills, pictures=pictures))
        return clip is not None and first is not None

    def kept_bytes(self, video_id: str) -> int:
        """Size of the clip and the stills of a video."""
        return sum(self._size(self.folder / kind / part_of(video_id)) for kind in ("clips", "stills"))

    def remove(self, video_id: str) -> None:
        """Remove the clip and the stills of a video."""
        for kind in ("clips", "stills"):
            self._remove(f"{kind}/{part_of(video_id)}")

    def _made(self, name: str, part: str, make: Callable[[VideoRecord, Path], None]) -> tuple[Path, str] | None:
        video = self._by_part().get(part)
        source = None if video is None else self._run().video_path(video.video_id)
        if video is None or source is None:
            return None
        key = f"{name.partition('/')[0]}/{part}"
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        sentinel = self.folder / (f"{key}.json" if key.startswith("clips/") else f"{key}/{SENTINEL}")
        with making:
            if not _is_of(sentinel, source):
                try:
                    make(video, source)
                    said: dict[str, Any] = {"source": _source(source)}
                except DecodeError as error:
                    log.warning("%s", error)
                    said = {"source": _source(source), "error": str(error)}
                write_json(sentinel, said)
                self._note(key)
        path = self.folder / name
        if not path.is_file():
            return None
        os.utime(sentinel, ns=(time.time_ns(), time.time_ns()))  # it was looked at now
        return self.folder, name

    def _make_clip(self, video: VideoRecord, source: Path, *, pictures: Pictures | None = None) -> None:
        """Make a clip; where it shows the video's own pictures, those that stills are made of go into `pictures`."""
        path = self.folder / "clips" / f"{part_of(video.video_id)}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
        try:
            copied = copy_clip(source, unfinished, [] if pictures is None else video.grid.frame_ids.tolist())
            if copied is None:
                encode_clip(source, unfinished)
            elif pictures is not None:
                pictures.update(copied)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def _make_stills(self, video: VideoRecord, source: Path, *, pictures: Pictures | None = None) -> None:
        folder = self.folder / "stills" / part_of(video.video_id)
        ids = video.grid.frame_ids.tolist()
        known = pictures or {}
        frames = [known[i] for i in ids] if known.keys() >= set(ids) else decode_frames(source, ids)
        for t, frame in enumerate(frames):
            write_atomic(folder / f"{t}.jpg", still(frame))

    def _by_part(self) -> Mapping[str, VideoRecord]:
        run = self._run()
        with self._lock:
            if self._videos is None or self._videos[0] is not run:
                self._videos = run, {part_of(video.video_id): video for video in run.videos}
            return self._videos[1]

    def _note(self, key: str) -> None:
        """Note what was made, and remove what was looked at longest ago if there is too much."""
        with self._lock:
            if self._kept is None:
                self._kept = {}
                for sentinel in [*self.folder.glob("clips/*.json"), *self.folder.glob(f"stills/*/{SENTINEL}")]:
                    of = sentinel.with_suffix("") if sentinel.name != SENTINEL else sentinel.parent
                    self._kept[of.relative_to(self.folder).as_posix()] = self._size(of)
            self._kept[key] = self._size(self.folder / key)
            if sum(self._kept.values()) <= self._most_bytes:
                return
            oldest = sorted(self._kept, key=lambda each: (each == key, self._looked_at(each), each))
            for each in oldest[:-1]:
                self._remove(each)
                del self._kept[each]
                if sum(self._kept.values()) <= self._most_bytes:
                    return

    def _files(self, of: Path) -> list[Path]:
        """Sentinel first: without it, the rest counts as not made."""
        if of.parent.name == "clips":
            return [of.with_name(f"{of.name}.json"), of.with_name(f"{of.name}.mp4")]
        return [of / SENTINEL, *of.glob("*.jpg")]

    def _size(self, of: Path) -> int:
        return sum(path.stat().st_size for path in self._files(of) if path.is_file())

    def _looked_at(self, key: str) -> int:
        sentinel = self._files(self.folder / key)[0]
        return sentinel.stat().st_mtime_ns if sentinel.is_file() else 0

    def _remove(self, key: str) -> None:
        for path in self._files(self.folder / key):
            path.unlink(missing_ok=True)


def copy_clip(source: Path, target: Path, wanted: Collection[int] = ()) -> Pictures | None:
    """Write a video's own pictures, without sound, where every browser plays them and shows any of them at once.

    Returns:
        The wanted pictures, which are decoded anyway; None if nothing was written, unless the file is whole H.264 in
        4:2:0 and 8 bits, upright, of square pixels, not too high, with times that begin at 0, and a browser reaches
        every picture within `MOST_DECODED_PX`.
    """
    try:
        with av.open(source) as container:
            video = container.streams.video[0]
            packets = [packet for packet in container.demux(video) if packet.size]
            # The header and the packets first: to decode a large video only to refuse it takes as long as to encode it.
            if not _may_play(video, packets):
                return None
            pictures = _pictures(source, video, len(packets), frozenset(wanted))
            if pictures is None:
                return None
            with av.open(target, "w", format="mp4", options=_MOVFLAGS) as output:
                copied = output.add_stream_from_template(video)
                for packet in packets:
                    packet.stream = copied
                    output.mux(packet)
    except (FFmpegError, IndexError):
        return None
    return pictures


def _may_play(video: VideoStream, packets: Sequence[Packet[VideoStream]]) -> bool:
    """Whether header and packets are those of a video that may be copied."""
    context = video.codec_context
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    times = {packet.pts for packet in packets if packet.pts is not None}
    return (
        (context.name, context.pix_fmt) == ("h264", "yuv420p")
        and shown_size(context.height, context.width) == (context.height, context.width)
        and context.sample_aspect_ratio in (None, 0, 1)
        and keys[:1] == [0]
        and len(times) == len(packets)
        and min(times) == 0
        and int(np.diff([*keys, len(packets)]).max()) * context.height * context.width <= MOST_DECODED_PX
    )


def _pictures(source: Path, video: VideoStream, n_frames: int, wanted: frozenset[int]) -> Pictures | None:
    """The wanted pictures; None unless all are what the header says, undamaged and shown as they are stored."""
    context = video.codec_context
    expected = (context.height, context.width, context.pix_fmt)
    found, n = Pictures(), 0
    for _, frame in each_frame(source):
        is_expected = (frame.height, frame.width, frame.format.name) == expected
        if not is_expected or frame.is_corrupt or orientation(frame) != AS_STORED:
            return None
        if n in wanted:
            found[n] = shown_image(frame)
        n += 1
    return found if n == n_frames else None


def encode_clip(source: Path, target: Path) -> None:
    """Write a video as H.264 in MP4 that plays while it loads, with all its frames and without sound.

    Raises:
        DecodeError: it cannot be decoded.
    """
    stream = None
    last = -1
    with av.open(target, "w", format="mp4", options=_MOVFLAGS) as output:
        for time_s, frame in each_frame(source):
            if stream is None:
                height, width = orientation(frame).size(frame.height, frame.width)
                size = shown_size(height, width)
                stream = output.add_stream("libx264", rate=30, options=_OPTIONS)
                stream.height, stream.width = size
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = CLOCK
            shown = _shown(frame, (stream.height, stream.width))
            last = max(last + 1, round(time_s / CLOCK))
            shown.pts, shown.time_base = last, CLOCK
            output.mux(stream.encode(shown))
        if stream is None:
            raise DecodeError(f"{printable(source, 1000)} shows no picture: replace the file or remove it.")
        output.mux(stream.encode(None))


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a clip, both even, for frames of a size."""
    scale = min(1.0, HIGHEST_PX / height)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _shown(frame: VideoFrame, size: tuple[int, int]) -> VideoFrame:
    """A frame in display orientation and at a size, without its key-frame mark, which the encoder decides."""
    if orientation(frame) != AS_STORED:
        frame = VideoFrame.from_ndarray(shown_image(frame), format="rgb24")
    shown = frame.reformat(height=size[0], width=size[1], format="yuv420p")
    shown.pict_type = 0
    return shown


def still(frame: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    """A frame as a JPEG, at most `HIGHEST_PX` high."""
    image = Image.fromarray(frame)
    if image.height > HIGHEST_PX:
        image = image.resize((max(1, round(image.width * HIGHEST_PX / image.height)), HIGHEST_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _source(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path.resolve()), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}


def _is_of(sentinel: Path, source: Path) -> bool:
    if not sentinel.is_file():
        return False
    try:
        return read_object(sentinel, "delete it").get("source") == _source(source)
    except (UserError, OSError):
        return False
