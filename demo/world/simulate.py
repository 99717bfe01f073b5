"""The demo world: what happens in one short tabletop video, as pure functions of (seed, index).

A `Scene` is the full script of one video; `placements` says where everything is at any second of it. Drawing is in
`demo.world.draw`, Perception Test annotations in `demo.world.annotate`, questions in `demo.world.questions`.

Two kinds of scene. *Tabletop*: toys of five colours and four shapes that may enter, leave and return, a lamp that
turns on and off, a mug, and a hand that lifts, taps or covers toys. *Cups*: two to four identical cups, a ball that is
hidden under one of them, and up to two swaps; the end reveals the ball, so these videos have a cut frame.

Counts are drawn so that they carry no information outside the picture: the queried count and its answer options are
uniform over all (option triple, answer) pairs, and the number of toys in the scene is drawn independently.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from demo.vlm.vocabulary import ACTIONS, COLOURS, PLACES, SHAPES

FPS = 30
SAMPLES = 8  # frames the demo model looks at; every event outlasts one sampling interval
BASE_PX = 240  # shorter side of a video; sizes below are in these pixels
SIZES_PX = ((320, 240), (240, 320), (288, 240))
COLUMNS = (0.14, 0.38, 0.62, 0.86)
ROWS = (0.2, 0.5, 0.8)
CUP_ROW = 0.52
LIFT = 0.1
POP_S = 0.25
REACH_S = 0.1
REVEAL_S = 1.0

ActionKind = Literal["lift", "tap", "cover"]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A coloured toy at its home place; `visible` are the seconds during which it stands on the table."""

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


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One thing at one moment: centre and full size normalised; `scale` < 1 while it pops up.

    `shown` is False while it is away; `hidden` is True while something covers it fully (its box persists).
    """

    name: str
    track: int
    x: float
    y: float
    w: float
    h: float
    scale: float = 1.0
    shown: bool = True
    hidden: bool = False
    pose: str = ""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2, clipped to the frame."""
        half_w, half_h = self.w / 2, self.h / 2
        return (
            max(self.x - half_w, 0.0),
            max(self.y - half_h, 0.0),
            min(self.x + half_w, 1.0),
            min(self.y + half_h, 1.0),
        )


LAMP_TRACK, MUG_TRACK, HAND_TRACK = 100, 101, 102
BALL_TRACK = 103


def draw_count(rng: np.random.Generator, most: int) -> Count:
    """A count in 0..most and an option triple, uniform over all pairs of a triple and one of its three answers."""
    first = int(rng.integers(0, most - 1))
    return Count(value=first + int(rng.integers(3)), first_option=first)


def draw_intervals(
    rng: np.random.Generator, n: int, start: float, end: float, shortest: float, longest: float, gap: float
) -> list[Interval]:
    """`n` disjoint intervals in [start, end], at least `gap` apart, with the slack spread uniformly."""
    lengths = rng.uniform(shortest, longest, n)
    slack = end - start - lengths.sum() - gap * max(n - 1, 0)
    assert slack >= 0, "the intervals do not fit"
    cuts = np.sort(rng.uniform(0, slack, n))
    begins = start + cuts + np.concatenate([[0.0], np.cumsum(lengths + gap)[:-1]]) if n else np.zeros(0)
    return [(float(b), float(b + length)) for b, length in zip(begins, lengths, strict=True)]


def _draw_visible(rng: np.random.Generator, tau: float, end: float) -> tuple[Interval, ...]:
    """When a toy stands on the table; every stay and every absence outlasts one sampling interval."""
    fate = rng.random()
    if fate < 0.40:
        return ((0.0, end),)
    late = float(rng.uniform(0.3 * tau, 5.6 * tau))
    if fate < 0.65:
        return ((late, end),)
    if fate < 0.75:
        return ((0.0, float(rng.uniform(1.3 * tau, 5.5 * tau))),)
    if fate < 0.85:
        enter = float(rng.uniform(0.3 * tau, 3.0 * tau))
        return ((enter, float(enter + rng.uniform(1.4 * tau, 2.5 * tau))),)
    leave = float(rng.uniform(1.3 * tau, 3.5 * tau))
    back = float(leave + rng.uniform(1.2 * tau, 2.2 * tau))
    return ((0.0, leave), (back, end))


def _draw_look(rng: np.random.Generator) -> Look:
    skin = ((224, 172, 140), (198, 134, 100), (141, 85, 60), (255, 205, 175))[int(rng.integers(4))]
    sleeve = ((60, 60, 70), (120, 120, 125), (40, 50, 60), (180, 180, 185))[int(rng.integers(4))]
    crumbs = tuple(
        (float(rng.uniform(0.02, 0.98)), float(rng.uniform(0.02, 0.98)), float(rng.uniform(2, 7)))
        for _ in range(int(rng.integers(0, 9)))
    )
    return Look(
        background=int(rng.integers(4)),
        background_seed=int(rng.integers(2**31)),
        gain=float(rng.uniform(0.72, 1.12)),
        warmth=float(rng.uniform(-0.06, 0.06)),
        gradient=(float(rng.uniform(-0.18, 0.18)), float(rng.uniform(-0.18, 0.18))),
        flicker=float(rng.uniform(0.0, 0.05)),
        noise=float(rng.uniform(1.0, 5.0)),
        skin=skin,
        sleeve=sleeve,
        crumbs=crumbs,
        tremble=float(rng.uniform(0.0, 0.006)),
        pan=float(rng.uniform(0.015, 0.03)) if rng.random() < 0.3 else 0.0,
        pan_phase=float(rng.uniform(0, 2 * np.pi)),
    )


def draw_scene(seed: int, index: int) -> Scene:
    """The scene number `index` of the world with this seed."""
    rng = np.random.default_rng([seed, index])
    width, height = SIZES_PX[int(rng.integers(len(SIZES_PX)))]
    n_clip = int(rng.integers(180, 211))
    look = _draw_look(rng)
    if rng.random() < 0.3:
        return _draw_cups(rng, seed, index, width, height, n_clip, look)
    return _draw_tabletop(rng, seed, index, width, height, n_clip, look)


def _draw_tabletop(
    rng: np.random.Generator, seed: int, index: int, width: int, height: int, n_clip: int, look: Look
) -> Scene:
    end = n_clip / FPS
    tau = (n_clip - 1) / (SAMPLES - 1) / FPS
    counts = {
        "colour": draw_count(rng, 4),
        "shape": draw_count(rng, 4),
        "action": draw_count(rng, 3),
        "lamp": draw_count(rng, 3),
    }
    n_toys = max(int(rng.integers(4, 8)), 1)
    mug_place = PLACES[int(rng.integers(3))]
    mug_column = {"left": [0], "middle": [1, 2], "right": [3]}[mug_place]
    mug_slot = (int(rng.choice(mug_column)), int(rng.integers(len(ROWS))))
    slots = [(c, r) for c in range(len(COLUMNS)) for r in range(len(ROWS)) if (c, r) != mug_slot]
    slots = [slots[i] for i in rng.permutation(len(slots))]

    def place(slot: tuple[int, int], jitter: float = 0.02) -> tuple[float, float]:
        return (
            COLUMNS[slot[0]] + float(rng.uniform(-jitter, jitter)),
            ROWS[slot[1]] + float(rng.uniform(-jitter, jitter)),
        )

    asked_colour = COLOURS[int(rng.integers(len(COLOURS)))]
    asked_shape = SHAPES[int(rng.integers(len(SHAPES)))]
    other_colours = [c for c in COLOURS if c != asked_colour]
    other_shapes = [s for s in SHAPES if s != asked_shape]
    of_colour = set(rng.permutation(n_toys)[: counts["colour"].value].tolist())
    of_shape = set(rng.permutation(n_toys)[: counts["shape"].value].tolist())
    always = int(rng.integers(n_toys))
    toys: list[Toy] = []
    for i in range(n_toys):
        x, y = place(slots[i + 1])
        toys.append(
            Toy(
                id=i,
                colour=asked_colour if i in of_colour else other_colours[int(rng.integers(4))],
                shape=asked_shape if i in of_shape else other_shapes[int(rng.integers(3))],
                x=x,
                y=y,
                size_px=float(rng.uniform(50, 60)),
                texture=("plain", "stripes", "dots")[int(rng.integers(3))],
                hue_shift=float(rng.uniform(-0.025, 0.025)),
                phase=float(rng.uniform(0, 2 * np.pi)),
                wobble=float(rng.uniform(0, 0.012)),
                visible=((0.0, end),) if i == always else _draw_visible(rng, tau, end),
            )
        )
    asked_action: ActionKind = list[ActionKind](["lift", "tap", "cover"])[int(rng.integers(3))]
    others = [k for k in ACTIONS if k != asked_action]
    n_asked = counts["action"].value
    n_other = int(rng.integers(0, 4 - n_asked)) if rng.random() < 0.6 else 0
    other = others[int(rng.integers(2))]
    kinds = [asked_action] * n_asked + [other] * n_other
    kinds = [kinds[i] for i in rng.permutation(len(kinds))]
    spans = draw_intervals(rng, len(kinds), 0.15 * tau, end - 0.1, 1.2 * tau, 1.4 * tau, 1.05 * tau)
    actions: list[Action] = []
    for kind, (a, b) in zip(kinds, spans, strict=True):
        able = [t.id for t in toys if any(s <= max(a - POP_S, 0.0) and b + POP_S <= e + 0.5 for s, e in t.visible)]
        chosen = int(able[int(rng.integers(len(able)))])
        actions.append(Action(kind=kind, toy=chosen, start=a, end=b))  # pyright: ignore[reportArgumentType]
    lamp_on = draw_intervals(rng, counts["lamp"].value, 0.2 * tau, end, 1.08 * tau, 1.5 * tau, 1.08 * tau)
    return Scene(
        seed=seed,
        index=index,
        kind="tabletop",
        width=width,
        height=height,
        n_clip=n_clip,
        n_frames=n_clip,
        look=look,
        toys=tuple(toys),
        actions=tuple(actions),
        lamp_colour=COLOURS[int(rng.integers(len(COLOURS)))],
        lamp_xy=place(slots[0]),
        lamp_size_px=float(rng.uniform(52, 62)),
        lamp_on=tuple(lamp_on),
        mug_xy=place(mug_slot),
        mug_size_px=float(rng.uniform(46, 60)),
        mug_place=mug_place,
        asked_colour=asked_colour,
        asked_shape=asked_shape,
        asked_action=asked_action,
        counts=counts,
    )


def _draw_cups(
    rng: np.random.Generator, seed: int, index: int, width: int, height: int, n_clip: int, look: Look
) -> Scene:
    tau = (n_clip - 1) / (SAMPLES - 1) / FPS
    n_cups = int(rng.integers(2, 5))
    n_swaps = int(rng.integers(0, 3))
    spans = draw_intervals(rng, n_swaps, 1.4 * tau, n_clip / FPS - 0.1, 1.2 * tau, 1.5 * tau, 1.05 * tau)
    swaps: list[Swap] = []
    for a, b in spans:
        left, right = sorted(rng.permutation(n_cups)[:2].tolist())
        swaps.append(Swap(left=left, right=right, start=a, end=b))
    return Scene(
        seed=seed,
        index=index,
        kind="cups",
        width=width,
        height=height,
        n_clip=n_clip,
        n_frames=n_clip + round(REVEAL_S * FPS),
        look=look,
        counts={"cups": Count(value=n_cups, first_option=2), "swaps": Count(value=n_swaps, first_option=0)},
        n_cups=n_cups,
        cup_colour=COLOURS[int(rng.integers(len(COLOURS)))],
        cup_size_px=float(rng.uniform(46, 54)),
        ball_place=int(rng.integers(n_cups)),
        ball_colour=COLOURS[int(rng.integers(len(COLOURS)))],
        swaps=tuple(swaps),
    )


def final_ball_place(scene: Scene) -> int:
    """Index in the row of the cup that hides the ball after all swaps."""
    place = scene.ball_place
    for swap in scene.swaps:
        place = {swap.left: swap.right, swap.right: swap.left}.get(place, place)
    return place


def camera_offset(scene: Scene, t: float) -> tuple[float, float]:
    """Normalised shift of the whole picture at second t: tremble, and a slow pan if the camera moves."""
    look = scene.look
    dx = look.tremble * np.sin(2 * np.pi * 1.7 * t + look.pan_phase) + look.pan * np.sin(0.9 * t + look.pan_phase)
    dy = look.tremble * np.cos(2 * np.pi * 2.3 * t + look.pan_phase) + 0.5 * look.pan * np.cos(0.7 * t)
    return float(dx), float(dy)


def _ramp(t: float, start: float, end: float, rise: float) -> float:
    """0 outside [start, end], 1 inside, linear over `rise` seconds at both ends."""
    if not start <= t < end:
        return 0.0
    return float(min(1.0, (t - start) / rise if start > 0 else 1.0, max((end - t) / rise, 0.0)))


def active_action(scene: Scene, t: float) -> Action | None:
    """The action under way at second t."""
    return next((a for a in scene.actions if a.start <= t < a.end), None)


def lamp_is_on(scene: Scene, t: float) -> bool:
    """Whether the lamp shines at second t."""
    return any(a <= t < b for a, b in scene.lamp_on)


def placements(scene: Scene, t: float) -> list[Placement]:
    """Everything in the scene at second t, back to front, with the camera's shift applied."""
    things = _cup_placements(scene, t) if scene.kind == "cups" else _tabletop_placements(scene, t)
    dx, dy = camera_offset(scene, t)
    return [_shifted(p, dx, dy) for p in things]


def _shifted(p: Placement, dx: float, dy: float) -> Placement:
    return Placement(
        name=p.name,
        track=p.track,
        x=p.x + dx,
        y=p.y + dy,
        w=p.w,
        h=p.h,
        scale=p.scale,
        shown=p.shown,
        hidden=p.hidden,
        pose=p.pose,
    )


def _tabletop_placements(scene: Scene, t: float) -> list[Placement]:
    w, h = scene.width, scene.height
    action = active_action(scene, t)
    lamp, mug = scene.lamp_size_px, scene.mug_size_px
    out = [
        Placement(
            name="lamp",
            track=LAMP_TRACK,
            x=scene.lamp_xy[0],
            y=scene.lamp_xy[1],
            w=lamp / w,
            h=lamp / h,
            pose="on" if lamp_is_on(scene, t) else "off",
        ),
        Placement(name="mug", track=MUG_TRACK, x=scene.mug_xy[0], y=scene.mug_xy[1], w=mug / w, h=mug / h),
    ]
    hand: Placement | None = None
    for toy in scene.toys:
        stay = next(((a, b) for a, b in toy.visible if a <= t < b), None)
        scale = 0.0
        if stay is not None:
            at_end = stay[1] >= scene.clip_s
            scale = _ramp(t, stay[0], stay[1] + (POP_S if at_end else 0.0), POP_S)
        x = toy.x + toy.wobble * float(np.sin(1.3 * t + toy.phase))
        y = toy.y + toy.wobble * float(np.cos(1.1 * t + toy.phase))
        hidden = False
        if action is not None and action.toy == toy.id:
            reach = _ramp(t, action.start, action.end, REACH_S)
            if action.kind == "lift":
                y -= LIFT * reach
            hidden = action.kind == "cover" and reach > 0.99
            hand = Placement(
                name="hand",
                track=HAND_TRACK,
                x=x,
                y=y,
                w=1.25 * toy.size_px / w,
                h=1.25 * toy.size_px / h,
                scale=reach,
                pose=action.kind,
            )
        out.append(
            Placement(
                name=toy.label,
                track=toy.id,
                x=x,
                y=y,
                w=toy.size_px / w,
                h=toy.size_px / h,
                scale=max(scale, 0.05),
                shown=scale > 0.0,
                hidden=hidden,
            )
        )
    return [*out, hand] if hand is not None else out


def cup_row(n_cups: int) -> tuple[float, ...]:
    """Normalised x of the places in a row of cups."""
    return {2: (0.3, 0.7), 3: (0.2, 0.5, 0.8), 4: (0.14, 0.38, 0.62, 0.86)}[n_cups]


def _cup_placements(scene: Scene, t: float) -> list[Placement]:
    row = cup_row(scene.n_cups)
    tau = scene.interval_s
    where = list(range(scene.n_cups))  # cup -> place
    moved = dict.fromkeys(range(scene.n_cups), (0.0, 0.0))
    moving: set[int] = set()
    for swap in scene.swaps:
        if t < swap.start:
            break
        a, b = where.index(swap.left), where.index(swap.right)
        if t >= swap.end:
            where[a], where[b] = swap.right, swap.left
            continue
        s = float(np.clip((t - swap.start - REACH_S) / (swap.end - swap.start - 2 * REACH_S), 0, 1))
        s = 0.1 + 0.8 * s
        span = row[swap.right] - row[swap.left]
        lift = 0.26 * min(1.0, 4 * s * (1 - s) + 0.25)
        moved[a] = (s * span, -lift)
        moved[b] = (-s * span, lift)
        moving = {a, b}
    hidden_under = scene.ball_place
    raised = max(_ramp(t, 0.0, 1.25 * tau, 0.15), 1.0 if t >= scene.clip_s + 0.15 else 0.0)
    w, h, size = scene.width, scene.height, scene.cup_size_px
    centre_x = {c: row[where[c]] + moved[c][0] for c in range(scene.n_cups)}
    centre_y = {c: CUP_ROW + moved[c][1] for c in range(scene.n_cups)}
    ball = Placement(
        name=f"{scene.ball_colour} ball",
        track=BALL_TRACK,
        x=centre_x[hidden_under],
        y=centre_y[hidden_under] + 0.08 * size / 50,
        w=0.62 * size / w,
        h=0.62 * size / h,
        hidden=raised < 0.5,
    )
    cups = [
        Placement(
            name="cup",
            track=c,
            x=centre_x[c],
            y=centre_y[c] - (0.24 * raised if c == hidden_under else 0.0),
            w=size / w,
            h=1.1 * size / h,
            pose="moving" if c in moving else "",
        )
        for c in range(scene.n_cups)
    ]
    hands = [
        Placement(
            name="hand",
            track=HAND_TRACK,
            x=p.x,
            y=p.y - 0.5 * p.h,
            w=0.7 * size / w,
            h=0.5 * size / h,
            pose="hold",
        )
        for p in cups
        if p.pose == "moving" and p.y < CUP_ROW
    ]
    return [ball, *cups, *hands]
