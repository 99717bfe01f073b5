"""Where everything in a scene is at any second of it: pure functions of the script."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.world.scene import POP_S, Action, Scene

CUP_ROW = 0.52
LIFT = 0.1
REACH_S = 0.1


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
