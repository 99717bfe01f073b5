"""Where clips and stills lie, relative to the page."""

from __future__ import annotations

from browse.names import part_of


def clip_name(video_id: str) -> str:
    """The clip of a video."""
    return f"media/clips/{part_of(video_id)}.mp4"


def still_name(video_id: str, t: int) -> str:
    """The first frame of a time step that the model saw."""
    return f"media/stills/{part_of(video_id)}/{t}.jpg"
