"""The clips of a run's videos as the model reads them; in a pass over many, the next ones are decoded meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from collect.data.perception_test import Video
from collect.pipeline import in_order, worker_bytes
from collect.process.machine import default_workers
from collect.video.decode import decode_clip
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, VideoVlm


def clip_prefix(vlm: VideoVlm, video: Video, frames: FrameSampling) -> Prefix:
    """Decode a video's clip, up to the cut frame of its questions, and run the vision tower.

    Raises:
        UserError: the video cannot be decoded.
    """
    return vlm.with_features([_prepared(vlm, video, frames)])[0]


class Clips:
    """Prefixes of videos by id, each made when it is asked for.

    Args:
        vlm: the model.
        video: the video of an id.
        frames: which frames of a video make its clip.
    """

    def __init__(self, vlm: VideoVlm, video: Callable[[str], Video], frames: FrameSampling) -> None:
        self._vlm, self._video, self._frames = vlm, video, frames
        self._ahead: dict[str, Prefix] = {}

    def __getitem__(self, video_id: str) -> Prefix:
        """The prefix of a video, with what the vision tower makes of it.

        Raises:
            UserError: the video cannot be decoded.
        """
        ready = self._ahead.pop(video_id, None)
        if ready is None:
            return clip_prefix(self._vlm, self._video(video_id), self._frames)
        return self._vlm.with_features([ready])[0]

    def in_turn(self, video_ids: Sequence[str]) -> Iterator[str]:
        """The ids in their order, for a pass that asks for the prefix of each: clips are decoded ahead, in threads.

        Raises:
            UserError: a video cannot be decoded, when its turn has come.
        """
        videos = [self._video(video_id) for video_id in video_ids]
        workers = default_workers(worker_bytes(videos, self._frames), max(len(videos), 1))
        prepared = in_order(
            lambda video: _prepared(self._vlm, video, self._frames), videos, workers=workers, ahead=workers
        )
        for video_id, prefix in zip(video_ids, prepared, strict=True):
            self._ahead = {video_id: prefix}
            yield video_id
        self._ahead = {}


def _prepared(vlm: VideoVlm, video: Video, frames: FrameSampling) -> Prefix:
    assert video.path is not None, f"{video.video_id} has no file"
    return vlm.prefix(decode_clip(video.path, video.video_id, frames, video.cut_frame))
