"""Which frames of a video a VLM is given, in one word on the command line.

    16           sixteen frames, evenly spread from the first to the last
    2fps         two frames per second by true presentation times, at most 128
    2fps:32      the same, at most 32; a longer video has 32 frames evenly spread
    0,30,60      the frames with these ids, and no others; a single one is written `30,`

Only the words are read here, without numpy or torch, so that configs may check them; `collect.video.decode` picks the
frames.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from collect.errors import UserError

MAX_FRAMES = 4096
"""Most frames of a clip, however they are chosen: this bounds what a typing error may cost."""

DEFAULT_FPS_CAP = 128
"""Most frames of a clip that is sampled by rate, if the word gives no other number."""

SLACK_S = 1e-3
"""How late a frame may be for a time of the rate: Matroska and WebM round times to milliseconds."""

HOW = "give a number of frames such as 16, a rate such as 2fps or 2fps:32, or frame ids such as 0,30,60"


@dataclass(frozen=True, kw_only=True)
class FrameSampling:
    """A rule that picks frames of a video.

    Exactly one of `n`, `fps` and `ids` is set.
    """

    n: int | None = None
    """Frames evenly spread from the first to the last; a video shorter than that repeats some."""
    fps: float | None = None
    """Frames per second: the frame that is shown at each of the times 0, 1/fps, 2/fps, ..."""
    max_n: int = DEFAULT_FPS_CAP
    """Most frames of a clip that is sampled by `fps`; if the rate gives more, this many are evenly spread."""
    ids: tuple[int, ...] | None = None
    """Frame ids in presentation order, in the order in which the model should see them."""

    def __post_init__(self) -> None:
        if sum(rule is not None for rule in (self.n, self.fps, self.ids)) != 1:
            raise UserError(f"Frames are chosen by exactly one of number, rate and ids: {HOW}.")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"A rate of {self.fps:g} frames a second picks no frames: {HOW}.")
        if self.ids is not None and any(i < 0 for i in self.ids):
            raise UserError(f"Frame ids count from 0, so that {min(self.ids)} is none: {HOW}.")
        if not 1 <= self.n_at_most <= MAX_FRAMES:
            raise UserError(f"A clip has 1 to {MAX_FRAMES} frames, not {self.n_at_most}: {HOW}.")

    @classmethod
    def parse(cls, text: str) -> "FrameSampling":
        """Read a rule from one word.

        Raises:
            UserError: the word is not a rule, or asks for no frames or for more than `MAX_FRAMES`.
        """
        word = text.strip().lower()
        if re.fullmatch(r"\d+", word):
            return cls(n=int(word))
        rate = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*fps(?::(\d+))?", word)
        if rate:
            return cls(fps=float(rate[1]), max_n=DEFAULT_FPS_CAP if rate[2] is None else int(rate[2]))
        if re.fullmatch(r"\d+\s*,(\s*\d+\s*(,|$))*", word):
            return cls(ids=tuple(int(part) for part in word.split(",") if part.strip()))
        raise UserError(f"{text!r} does not say which frames to take: {HOW}.")

    def __str__(self) -> str:
        """The word that `parse` reads as this rule."""
        if self.n is not None:
            return str(self.n)
        if self.ids is not None:
            return ",".join(map(str, self.ids)) + ("," if len(self.ids) == 1 else "")
        rate = f"{Decimal(repr(self.fps)):f}".removesuffix(".0")
        return f"{rate}fps" if self.max_n == DEFAULT_FPS_CAP else f"{rate}fps:{self.max_n}"

    @property
    def n_at_most(self) -> int:
        """Most frames that a clip can have."""
        if self.n is not None:
            return self.n
        return self.max_n if self.ids is None else len(self.ids)

    def n_of(self, last_s: float) -> int:
        """Frames of a clip of a video whose last frame is shown `last_s` seconds after its first one."""
        return self.n_at_most if self.fps is None else min(self.max_n, self.n_by_rate(last_s))

    def n_by_rate(self, last_s: float) -> int:
        """Number of the times 0, 1/fps, 2/fps, ... until `last_s`, however many they are."""
        assert self.fps is not None
        return int((last_s + SLACK_S) * self.fps) + 1
