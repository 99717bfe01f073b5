"""Which videos are held out. Training and choices see only the others; claims are measured on these.

This is the only definition; it depends only on the videos' ids and official splits, never on their order or on which of
them were collected first.
"""

import hashlib
from collections.abc import Iterable

OFFICIAL_TRAIN = "train"
DEFAULT_FRACTION = 0.3


def held_out_ids(videos: Iterable[tuple[str, str]], fraction: float = DEFAULT_FRACTION) -> frozenset[str]:
    """Choose the held-out videos.

    Where both the official train split and another one are present, the others are held out. Otherwise each video is
    held out, with probability `fraction`, by a fixed hash of its id; of two or more videos, at least one is held out
    and at least one is not.

    Args:
        videos: (video id, official split) of every video.
        fraction: share of the videos to hold out where the official splits do not decide.
    """
    pairs = sorted(set(videos))
    splits = {split for _, split in pairs}
    if OFFICIAL_TRAIN in splits and len(splits) > 1:
        return frozenset(video_id for video_id, split in pairs if split != OFFICIAL_TRAIN)
    ranked = sorted((_unit_interval(video_id), video_id) for video_id, _ in pairs)
    n = sum(place < fraction for place, _ in ranked)
    if len(ranked) > 1:
        n = min(max(n, 1), len(ranked) - 1)
    return frozenset(video_id for _, video_id in ranked[:n])


def _unit_interval(video_id: str) -> float:
    """A number in [0, 1) that depends on the id alone."""
    return int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "big") / 2**64
