"""What the demo's world rendered at every visual token, as some 800 concepts: the truth that names are held against.

Made from the scenes' scripts alone (`demo.world`) and the tokens' coordinates; nothing here comes from the
annotations or from the labelling of `features`. A concept is a number per visual token, mostly 0 or 1.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from collect.tokens.grid import TokenGrid
from demo.vlm.vocabulary import ACTIONS, SHAPES
from demo.world.motion import CUP_ROW, Placement, active_action, lamp_is_on, placements
from demo.world.scene import FPS, Scene

Mask = Bool[np.ndarray, "row col"]
PARTS = ("centre", "rim", "top", "bottom", "left", "right")


@dataclass(frozen=True, kw_only=True)
class Place:
    """The tokens of one thing in one frame."""

    cover: Float64[np.ndarray, "row col"]
    centre: Mask

    @property
    def on(self) -> Mask:
        """Tokens of which it covers at least half."""
        return self.cover >= 0.5

    def part(self, name: str) -> Mask:
        """One of `PARTS`: the cell of its centre, those it covers in part, or its outermost rows or columns."""
        touched = self.cover > 0
        if name == "centre":
            return self.centre
        if name == "rim":
            return touched & ~self.on
        axis, last = {"top": (0, False), "bottom": (0, True), "left": (1, False), "right": (1, True)}[name]
        lines = np.flatnonzero(touched.any(axis=1 - axis))
        if not len(lines):
            return touched
        line = lines[-1] if last else lines[0]
        index = np.arange(touched.shape[axis]) == line
        return touched & (index[:, None] if axis == 0 else index[None, :])


def place_of(p: Placement, grid: TokenGrid) -> Place:
    """Where a placement lies on the grid, its box cut to the frame."""
    x1, y1, x2, y2 = p.box
    across = np.clip(np.minimum(x2, grid.col_spans[:, 1]) - np.maximum(x1, grid.col_spans[:, 0]), 0, None)
    down = np.clip(np.minimum(y2, grid.row_spans[:, 1]) - np.maximum(y1, grid.row_spans[:, 0]), 0, None)
    cover = np.outer(down / np.diff(grid.row_spans)[:, 0], across / np.diff(grid.col_spans)[:, 0])
    row = np.clip(np.searchsorted(grid.row_spans[:, 1], p.y), 0, grid.n_rows - 1)
    col = np.clip(np.searchsorted(grid.col_spans[:, 1], p.x), 0, grid.n_cols - 1)
    centre = np.zeros(cover.shape, dtype=bool)
    centre[row, col] = True
    return Place(cover=np.where(cover < 1e-9, 0, cover), centre=centre)


def is_in_sight(p: Placement) -> bool:
    """Whether anything of it is drawn at nearly its size."""
    return p.shown and not p.hidden and p.scale >= 0.4


def kinds_of(p: Placement, scene: Scene) -> list[str]:
    """Everything that a thing is: its whole name, its kind, its colour and its shape."""
    if p.name == "lamp":
        state = "on" if p.pose == "on" else "off"
        return ["lamp", f"{scene.lamp_colour} lamp", f"lamp {state}", f"thing: {scene.lamp_colour}"]
    if p.name == "cup":
        return ["cup", f"{scene.cup_colour} cup", f"thing: {scene.cup_colour}", *(["moving cup"] * (p.pose != ""))]
    if p.name == "hand":
        return ["hand", f"hand: {p.pose}"]
    if p.name == "mug":
        return ["mug"]
    colour, shape = p.name.split()
    own = [p.name, f"name: {colour}", f"name: {shape}", f"thing: {colour}"]
    if scene.kind == "cups":
        return [*own, "cup-game ball"]
    toy = scene.toys[p.track]
    return [*own, "toy", f"{colour} toy", f"{shape} toy", f"toy: {toy.texture}"]


def is_parted(kind: str, part: str) -> bool:
    """Whether a part of such things is a concept; of names with their colour only centre and rim."""
    return part in ("centre", "rim") or kind in ("toy", "lamp", "mug", "cup", "hand") or kind.split()[0] in SHAPES


class Rendered:
    """Concepts of one video, [time step, row, column] each; what is never set is 0 everywhere."""

    def __init__(self, scene: Scene, grid: TokenGrid) -> None:
        self.scene, self.grid = scene, grid
        self.shape = (grid.n_t, grid.n_rows, grid.n_cols)
        self.values: dict[str, Float32[np.ndarray, "t row col"]] = defaultdict(
            lambda: np.zeros(self.shape, dtype=np.float32)
        )
        self.times = [float(frame) / FPS for frame in grid.frame_ids]
        self._things()
        self._changes()
        self._actions()
        self._swaps()
        self._whole_frames()
        self._place_and_time()

    def _acted(self, name: str, t: int, place: Place) -> None:
        self._mark(name, t, place.on)
        self._mark(f"centre: {name}", t, place.centre)

    def _mark(self, name: str, t: int, where: Mask | bool = True, value: float = 1.0) -> None:
        values = self.values[name][t]
        values[np.broadcast_to(where, values.shape)] = value

    def _things(self) -> None:
        for t, time_s in enumerate(self.times):
            n_in_sight = 0
            for p in placements(self.scene, time_s):
                place = place_of(p, self.grid)
                for kind in kinds_of(p, self.scene):
                    if p.shown:
                        self._mark(f"box: {kind}", t, place.on)  # also where it is hidden
                    if is_in_sight(p):
                        self._mark(kind, t, place.on)
                if not is_in_sight(p):
                    if p.hidden:
                        self._acted("hidden thing", t, place)
                        if self.scene.kind == "cups":
                            self._acted("hidden ball", t, place)
                    continue
                n_in_sight += 1
                self._mark("thing", t, place.on)
                for part in PARTS:
                    self._mark(f"{part}: thing", t, place.part(part))
                    for kind in kinds_of(p, self.scene):
                        if is_parted(kind, part):
                            self._mark(f"{part}: {kind}", t, place.part(part))
                if p.name == "cup" and p.track == self.scene.ball_place:
                    self._mark("cup with the ball", t, place.on)
                if p.name == "lamp" and p.pose == "on":
                    glow = Placement(name="", track=0, x=p.x, y=p.y - 0.2 * p.h, w=1.5 * p.w, h=1.5 * p.h)
                    self._mark("glow of the lamp", t, place_of(glow, self.grid).cover > 0)
                if p.name == "hand":
                    self._arm(p, t)
            self._mark("number of things in sight", t, value=float(n_in_sight))
            for n in range(2, n_in_sight + 1):
                self._mark(f"frame: {n} or more things", t)

    def _arm(self, p: Placement, t: int) -> None:
        cols = self.grid.col_spans
        x, up = (p.x, True) if p.pose == "hold" else (p.x + (0.125 if p.x < 0.5 else -0.125), False)
        column = (cols[:, 0] <= x) & (x < cols[:, 1])
        middle = self.grid.row_spans.mean(axis=1)
        rows = middle < p.y if up else middle > p.y
        self._mark("arm", t, rows[:, None] & column[None, :])
        self._mark(f"arm: {p.pose}", t, rows[:, None] & column[None, :])

    def _changes(self) -> None:
        """First sights, returns, departures, and what has been seen before, of toys, cups and the lamp's light."""
        met: set[int] = set()
        before: dict[int, Placement] = {}
        was_on, n_on = False, 0
        for t, time_s in enumerate(self.times):
            now = {p.track: p for p in placements(self.scene, time_s) if is_in_sight(p)}
            for track, p in now.items():
                place = place_of(p, self.grid)
                kinds = [*kinds_of(p, self.scene), "thing"]
                for kind in kinds if track not in met else ():
                    self._mark(f"first sight: {kind}", t, place.on | place.centre)
                    self._mark(f"first sight of the centre: {kind}", t, place.centre)
                    if t:
                        self._mark(f"first sight after the start: {kind}", t, place.on | place.centre)
                if t and track not in before:
                    self._mark(f"appears: {'toy' if 'toy' in kinds else kinds[0]}", t, place.on | place.centre)
                if p.name == "cup":
                    self._acted(f"{'moving' if p.pose else 'still'}: cup", t, place)
            for track, p in before.items():
                if track not in now and p.name not in ("hand", "lamp", "mug"):
                    self._mark("gone: thing", t, place_of(p, self.grid).on)
            met |= set(now)
            before = now
            if self.scene.kind == "tabletop":
                lamp = next(p for p in placements(self.scene, time_s) if p.name == "lamp")
                on, place = lamp.pose == "on", place_of(lamp, self.grid)
                n_on += on and not was_on
                if on and not was_on:
                    self._acted("lamp turns on", t, place)
                    self._mark("frame: lamp turns on", t)
                if was_on and not on:
                    self._mark("lamp turns off", t, place.on)
                self._acted(f"lamp {'since' if n_on else 'before'} click", t, place)
                if n_on and not on:
                    self._mark("lamp off again", t, place.on)
                if on:
                    self._mark("frame: lamp on", t)
                if n_on:
                    self._mark("frame: lamp has been on", t)
                self._mark("times the lamp turned on", t, value=float(n_on))
                was_on = on

    def _actions(self) -> None:
        began: set[float] = set()
        last = None
        for t, time_s in enumerate(self.times):
            action = active_action(self.scene, time_s) if self.scene.kind == "tabletop" else None
            for kind in ACTIONS:
                if any(a.kind == kind and a.start <= time_s for a in self.scene.actions):
                    self._mark(f"frame: since {kind}", t)
                if any(a.kind == kind for a in self.scene.actions):
                    self._mark(f"video: {kind}", t)
            if last is not None and action is not last:
                self._mark(f"frame: after {last.kind}", t)
                for p in placements(self.scene, time_s):
                    if p.track == last.toy:
                        self._mark(f"after: {last.kind}", t, place_of(p, self.grid).on)
            last = action
            if action is None:
                continue
            self._mark(f"frame: {action.kind}", t)
            self._mark("frame: action", t)
            if action.start not in began:
                self._mark(f"frame: {action.kind} begins", t)
            for p in placements(self.scene, time_s):
                place = place_of(p, self.grid)
                if p.name == "hand" or p.track == action.toy:
                    self._mark(f"taking part: {action.kind}", t, place.on)
                    if action.start not in began:
                        self._mark(f"taking part begins: {action.kind}", t, place.on)
                if p.track == action.toy:
                    self._acted(f"acted on: {action.kind}", t, place)
                    self._acted("acted on", t, place)
                    self._acted(f"{self.scene.toys[p.track].shape} acted on: {action.kind}", t, place)
                if p.name == "hand":
                    self._acted("hand at work", t, place)
                    if action.start not in began:
                        self._mark(f"hand begins: {action.kind}", t, place.on)
            began.add(action.start)

    def _swaps(self) -> None:
        if self.scene.kind != "cups":
            return
        began: set[float] = set()
        last = None
        for t, time_s in enumerate(self.times):
            self._mark("frame: cup game", t)
            if self.scene.swaps:
                self._mark("video: swap", t)
            self._mark(f"frame: {self.scene.n_cups} cups", t)
            n_done = sum(s.end <= time_s for s in self.scene.swaps)
            self._mark("number of swaps", t, value=float(n_done))
            if any(s.start <= time_s for s in self.scene.swaps):
                self._mark("frame: since swap", t)
            things = placements(self.scene, time_s)
            ball = next(p for p in things if p.name.endswith("ball"))
            if not ball.hidden:
                self._mark("frame: ball in sight", t)
                raised = next(p for p in things if p.name == "cup" and p.track == self.scene.ball_place)
                self._mark("raised cup", t, place_of(raised, self.grid).on)
            swap = next((s for s in self.scene.swaps if s.start <= time_s < s.end), None)
            if last is not None and swap is not last:
                self._mark("frame: after swap", t)
            last = swap
            for p in things:
                name, place = p.name.split()[-1], place_of(p, self.grid)
                swapped = any(s.start <= time_s for s in self.scene.swaps)
                self._acted(f"{name} {'since' if swapped else 'before'} swap", t, place)
                if swap is not None:
                    self._acted(f"{name} during swap", t, place)
                    if swap.start not in began:
                        self._acted(f"{name} when swap", t, place)
            if swap is None:
                self._mark("frame: cup game at rest", t)
                continue
            self._mark("frame: swap", t)
            if swap.start not in began:
                self._mark("frame: swap begins", t)
            began.add(swap.start)
            for p in things:
                if p.name == "cup" and p.pose:
                    side = "front" if p.y > CUP_ROW else "behind"
                    self._mark(f"moving cup: {side}", t, place_of(p, self.grid).on)
                if p.name == "hand" or p.pose == "moving":
                    self._mark("taking part: swap", t, place_of(p, self.grid).on)

    def _whole_frames(self) -> None:
        scene, look = self.scene, self.scene.look
        always = [f"background {look.background}", f"skin {look.skin}", f"shape {scene.width} x {scene.height}"]
        always += ["camera moves"] * scene.camera_moving + ["bright"] * (look.gain > 0.92)
        for t, time_s in enumerate(self.times):
            for name in always:
                self._mark(f"frame: {name}", t)
            self._mark("gain", t, value=look.gain)
            self._mark("warmth", t, value=look.warmth)
            in_sight = {k for p in placements(scene, time_s) if is_in_sight(p) for k in kinds_of(p, scene)}
            for kind in in_sight:
                self._mark(f"frame with: {kind}", t)
            if scene.lamp_on:
                self._mark("video: lamp turns on", t)
            if scene.kind == "tabletop" and not lamp_is_on(scene, time_s):
                self._mark("frame: lamp off", t)

    def _place_and_time(self) -> None:
        n_t, n_rows, n_cols = self.shape
        row, col = np.arange(n_rows)[:, None], np.arange(n_cols)[None, :]
        for t in range(n_t):
            self._mark(f"time {t}", t)
            self._mark("time", t, value=float(t))
            for k in range(1, n_t):
                self._mark(f"time from {k} on" if t >= k else f"time before {k}", t)
            for k in range(n_rows):
                self._mark(f"row {k}", t, row == k)
            for k in range(n_cols):
                self._mark(f"column {k}", t, col == k)
            border = (row == 0) | (row == n_rows - 1) | (col == 0) | (col == n_cols - 1)
            self._mark("border", t, border)
            self._mark("corner", t, ((row == 0) | (row == n_rows - 1)) & ((col == 0) | (col == n_cols - 1)))
            for name, where in (("upper", 2 * row < n_rows), ("left", 2 * col < n_cols)):
                self._mark(f"{name} half", t, where)
                self._mark(f"{'lower' if name == 'upper' else 'right'} half", t, ~where)


def concept_matrix(
    scenes: list[tuple[Scene, TokenGrid]],
) -> tuple[list[str], Float32[np.ndarray, "token concept"]]:
    """Concepts that some of the videos show, at all tokens of the videos one after another."""
    made = [Rendered(scene, grid).values for scene, grid in scenes]
    names = sorted({name for values in made for name in values})
    parts = [
        np.stack(
            [values[name].reshape(-1) if name in values else np.zeros(grid.n_tokens, np.float32) for name in names],
            axis=1,
        )
        for values, (_, grid) in zip(made, scenes, strict=True)
    ]
    return names, np.concatenate(parts)
