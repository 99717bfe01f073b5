"""What happens in each video: the script of scene number `index` of the world with a seed, drawn at random.

Counts are drawn so that they carry no information outside the picture: the queried count and its answer options are
uniform over all (option triple, answer) pairs, and the number of toys in the scene is drawn independently.
"""

from __future__ import annotations

import numpy as np

from demo.vlm.vocabulary import ACTIONS, COLOURS, PLACES, SHAPES
from demo.world.scene import (
    FPS,
    POP_S,
    REVEAL_S,
    SAMPLES,
    Action,
    ActionKind,
    Count,
    Interval,
    Look,
    Scene,
    Swap,
    Toy,
)

SIZES_PX = ((320, 240), (240, 320), (288, 240))
COLUMNS = (0.14, 0.38, 0.62, 0.86)
ROWS = (0.2, 0.5, 0.8)


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
    """When a toy is on the table; every stay and every absence outlasts one sampling interval."""
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
