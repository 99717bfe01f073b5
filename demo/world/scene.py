"""The demo world: the script of one short tabletop video.

A `Scene` holds everything that happens in a video. `demo.world.script` draws it at random, `demo.world.motion` says
where everything is at any second, `demo.world.draw` paints that, `demo.world.annotate` writes its annotations and
`demo.world.questions` its questions.

Two kinds of scene. *Tabletop*: toys of five colours and four shapes that may enter, leave and return, a lamp that
turns on and off, a mug, and a hand that lifts, taps or covers toys. *Cups*: two to four identical cups, a ball that is
hidden under one of them, and up to two swaps; the end reveals the ball, so these videos have a cut frame.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FPS = 30
SAMPLES = 8  # frames the demo model looks at; every event outlasts one sampling interval
BASE_PX = 240  # shorter side of a video; sizes below are in these pixels
POP_S = 0.25
REVEAL_S = 1.0

ActionKind = Literal["lift", "tap", "cover"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A coloured toy at its home place; `visible` are the seconds during which it is on the table."""

    id: int
    colour: str
    shape: str
    x: float
    y: float
    size_px: float
    texture: str
    hue_shift: float
    phase: float
    wobble: float
    visible: tuple[Interval, ...]

    @property
    def label(self) -> str:
        """The annotated name, e.g. "red ball"."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, kw_only=True)
class Action:
    """The hand acts on one toy during [start, end) seconds."""

    kind: ActionKind
    toy: int
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Swap:
    """The cups at places `left` and `right` (indices into the row) change places during [start, end)."""

    left: int
    right: int
    start: float
    end: float


@dataclass(frozen=True, kw_only=True)
class Look:
    """Nuisances that a count must not be read from."""

    background: int
    background_seed: int
    gain: float
    warmth: float
    gradient: tuple[float, float]
    flicker: float
    noise: float
    skin: tuple[int, int, int]
    sleeve: tuple[int, int, int]
    crumbs: tuple[tuple[float, float, float], ...]
    tremble: float
    pan: float
    pan_phase: float


@dataclass(frozen=True, kw_only=True)
class Count:
    """A queried count with the three consecutive options that are offered for it."""

    value: int
    first_option: int


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The script of one video. Lengths in seconds, positions normalised to the frame, sizes in base pixels."""

    seed: int
    index: int
    kind: Literal["tabletop", "cups"]
    width: int
    height: int
    n_clip: int
    n_frames: int
    look: Look
    toys: tuple[Toy, ...] = ()
    actions: tuple[Action, ...] = ()
    lamp_colour: str = ""
    lamp_xy: tuple[float, float] = (0.0, 0.0)
    lamp_size_px: float = 0.0
    lamp_on: tuple[Interval, ...] = ()
    mug_xy: tuple[float, float] = (0.0, 0.0)
    mug_size_px: float = 0.0
    mug_place: str = ""
    asked_colour: str = ""
    asked_shape: str = ""
    asked_action: ActionKind = "lift"
    counts: dict[str, Count] = field(default_factory=dict[str, Count])
    n_cups: int = 0
    cup_colour: str = ""
    cup_size_px: float = 0.0
    ball_place: int = 0
    ball_colour: str = ""
    swaps: tuple[Swap, ...] = ()

    @property
    def video_id(self) -> str:
        """The id in Perception Test's manner."""
        return f"video_{self.index}"

    @property
    def interval_s(self) -> float:
        """Seconds between two of the sampled frames."""
        return (self.n_clip - 1) / (SAMPLES - 1) / FPS

    @property
    def clip_s(self) -> float:
        """Length of the part that may be shown with the questions."""
        return self.n_clip / FPS

    @property
    def camera_moving(self) -> bool:
        """Whether the camera pans."""
        return self.look.pan > 0

    def sample_times(self) -> np.ndarray:
        """Seconds of the uniformly sampled frames, as `collect.video.decode` picks them. Shape [SAMPLES]."""
        return np.round(np.linspace(0, self.n_clip - 1, SAMPLES)) / FPS
