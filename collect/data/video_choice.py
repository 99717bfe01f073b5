"""Which videos of a dataset are collected, in one word: a split, a file of ids, a number, or several of them."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from collect.errors import UserError


@runtime_checkable
class Named(Protocol):
    """The part of a video that a selection reads."""

    @property
    def video_id(self) -> str:
        """The video's id."""
        ...


V = TypeVar("V", bound=Named)


@dataclass(frozen=True, kw_only=True)
class VideoChoice:
    """A parsed `--select`."""

    split: str | None = None
    """Only the videos of this official split."""
    ids: Path | None = None
    """Only the videos named in this file, one id per line (`collect.data.perception_test.read_ids`)."""
    limit: int | None = None
    """At most this many: those with the smallest hashes of their ids, so that a larger number includes the videos of a
    smaller one."""

    @classmethod
    def parse(cls, text: str | None) -> "VideoChoice":
        """Read a selection such as `valid`, `ids.txt`, `100` or `valid,100`.

        Raises:
            UserError: the text is not of that form.
        """
        found: dict[str, str] = {}
        for word in [] if text is None else text.split(","):
            name = "limit" if re.fullmatch(r"\d+", word) else "ids" if word.endswith((".txt", ".csv")) else "split"
            if name in found or not re.fullmatch(r"[^\s,]+", word) or word == "0":
                raise UserError(
                    f"--select must be a split, a file of ids (.txt or .csv), a number from 1, or several of them with "
                    f"commas such as valid,100, not {text!r}."
                )
            found[name] = word
        return cls(
            split=found.get("split"),
            ids=Path(found["ids"]) if "ids" in found else None,
            limit=int(found["limit"]) if "limit" in found else None,
        )

    def choose(self, videos: Sequence[V]) -> tuple[V, ...]:
        """At most `limit` of the videos, in their order; split and ids are for `load_dataset` to choose by."""
        if self.limit is None or self.limit >= len(videos):
            return tuple(videos)
        kept = set(sorted((video.video_id for video in videos), key=_hash)[: self.limit])
        return tuple(video for video in videos if video.video_id in kept)


def _hash(video_id: str) -> str:
    return hashlib.sha256(video_id.encode()).hexdigest()
