"""How many videos of which length and size there are: counted in a folder, or as published for Perception Test."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collect.data.perception_test import Dataset, Video, load_dataset
from collect.data.video_choice import VideoChoice
from collect.errors import UserError
from collect.video.file import DecodeError, probe

logger = logging.getLogger(__name__)

PUBLISHED: Mapping[str, int] = {"train": 2184, "valid": 5900, "test": 3525}
"""Videos of each split of Perception Test."""
PUBLISHED_SECONDS = 23.0
"""Their mean length."""
PUBLISHED_RATE = 30.0
PUBLISHED_HEIGHT, PUBLISHED_WIDTH = 1080, 1920
"""Their largest size, which is assumed for all of them."""
_EXPLAINED = 5
"""Unreadable videos for which the log gives the reason; `video-sae check` gives it for all."""


@dataclass(frozen=True, kw_only=True)
class VideoKind:
    """Videos that cost the same."""

    seconds: float
    """From the first frame to the last that may be shown."""
    n_frames: int
    """Frames in the file, which are decoded."""
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What will be collected."""

    text: str
    """Where the numbers come from."""
    kinds: Mapping[VideoKind, float]
    """How many videos of each kind."""
    examples: tuple[Video, ...] = ()
    """Some videos whose files are here."""

    @property
    def n_videos(self) -> int:
        """Videos in all."""
        return round(sum(self.kinds.values()))

    def scaled_to(self, n_videos: int) -> "Collection":
        """As many videos as asked for, in the same proportions."""
        factor = n_videos / sum(self.kinds.values())
        kinds = {kind: n * factor for kind, n in self.kinds.items()}
        return Collection(text=f"{n_videos:,} videos like those of {self.text}", kinds=kinds, examples=self.examples)


def read_collection(data: Path | None, select: str | None) -> Collection:
    """Count the videos of a folder, or take the published numbers.

    Raises:
        UserError: there is no such folder or split, or no video in it can be read.
    """
    selection = VideoChoice.parse(select)
    if data is None:
        return _published(selection)
    dataset = load_dataset(data, selection.split, selection.ids)
    videos = selection.choose(dataset.videos_with_files or dataset.videos)
    return _counted(dataset, videos)


def _published(selection: VideoChoice) -> Collection:
    split = selection.split or "valid"
    if split not in PUBLISHED or selection.ids is not None:
        raise UserError(
            f"Without --data there are only the published splits {', '.join(PUBLISHED)} to plan for: choose one with "
            "--select, or give --data."
        )
    n = PUBLISHED[split] if selection.limit is None else min(PUBLISHED[split], selection.limit)
    kind = VideoKind(
        seconds=PUBLISHED_SECONDS - 1 / PUBLISHED_RATE,
        n_frames=round(PUBLISHED_SECONDS * PUBLISHED_RATE),
        height=PUBLISHED_HEIGHT,
        width=PUBLISHED_WIDTH,
    )
    text = (
        f"Perception Test {split}, taken as {PUBLISHED_SECONDS:g} s of {PUBLISHED_RATE:g} frames a second at 1080p each"
    )
    return Collection(text=text, kinds={kind: float(n)})


def _counted(dataset: Dataset, videos: tuple[Video, ...]) -> Collection:
    known = [video for video in videos if video.frame_rate and video.height]
    _explain([video for video in videos if not (video.frame_rate and video.height)])
    if not known:
        raise UserError(f"{dataset.folder} has no video whose length and size can be read: plan without --data.")
    kinds: Counter[VideoKind] = Counter()
    for video in known:
        # If a container does not count its frames, the published mean length is assumed.
        n = video.n_frames or round(PUBLISHED_SECONDS * video.frame_rate)
        n_shown = n if video.cut_frame is None else min(n, video.cut_frame)
        kinds[
            VideoKind(seconds=(n_shown - 1) / video.frame_rate, n_frames=n, height=video.height, width=video.width)
        ] += 1
    unread = len(videos) - len(known)
    text = f"{dataset.folder}" + (f" ({unread} videos that cannot be read are left out)" if unread else "")
    examples = tuple(video for video in known if video.path is not None)
    return Collection(text=text, kinds={kind: float(n) for kind, n in kinds.items()}, examples=examples)


def _explain(unread: Sequence[Video]) -> None:
    """Log why the first few of these videos cannot be read."""
    for path in [video.path for video in unread if video.path is not None][:_EXPLAINED]:
        try:
            probe(path)
        except DecodeError as error:
            logger.warning("%s", error)
