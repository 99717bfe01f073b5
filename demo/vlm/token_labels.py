"""What is, and what happens, at every visual token of a scene: targets of the training's auxiliary heads.

Labels are boolean [SAMPLES, grid, grid, n]. SEEN can be known from one frame; HAPPENED needs several frames.
"""

from __future__ import annotations

import numpy as np

from demo.vlm.vocabulary import ACTIONS, COLOURS, SHAPES
from demo.world.motion import Placement, placements
from demo.world.questions import Item
from demo.world.scene import Scene

SEEN = (
    *(f"{c} toy" for c in COLOURS),
    *(f"{s} toy" for s in SHAPES),
    "toy centre",
    "lamp",
    "lamp on",
    "mug",
    *(f"hand {k}" for k in ACTIONS),
    "cup",
    "cup centre",
    "ball",
    *(f"{c} lamp" for c in COLOURS),
)
HAPPENED = (
    *(f"first sight of a {c} toy" for c in COLOURS),
    *(f"first sight of a {s}" for s in SHAPES),
    *(f"{k} begins" for k in ACTIONS),
    "lamp turns on",
    "swap begins",
    "first sight of a cup",
    "cup with the ball",
)
# What a question can be about: the HAPPENED labels that are counted, and what the other questions need.
ASKED = (
    *HAPPENED[:-1],
    "lamp",
    "mug",
    "any action begins",
    "last first sight of a toy",
    "cup with the ball at the end",
)
_SEEN = {name: i for i, name in enumerate(SEEN)}
_HAPPENED = {name: i for i, name in enumerate(HAPPENED)}


def _covered(p: Placement, grid: int) -> np.ndarray:
    """Cells that the box covers at least half of, bool [grid, grid]."""
    x1, y1, x2, y2 = (v * grid for v in p.box)
    edges = np.arange(grid)
    across = np.clip(np.minimum(x2, edges + 1) - np.maximum(x1, edges), 0, 1)
    down = np.clip(np.minimum(y2, edges + 1) - np.maximum(y1, edges), 0, 1)
    return down[:, None] * across[None, :] >= 0.5


def _cell(p: Placement, grid: int) -> tuple[int, int]:
    """Row and column of the cell that holds the centre."""
    return (
        int(np.clip(p.y * grid, 0, grid - 1)),
        int(np.clip(p.x * grid, 0, grid - 1)),
    )


def token_labels(scene: Scene, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """SEEN and HAPPENED labels of the scene's sampled frames."""
    times = scene.sample_times()
    seen = np.zeros((len(times), grid, grid, len(SEEN)), dtype=bool)
    happened = np.zeros((len(times), grid, grid, len(HAPPENED)), dtype=bool)
    met: set[int] = set()
    counted: set[float] = set()
    for f, t in enumerate(float(t) for t in times):
        for p in placements(scene, t):
            _label_one(scene, p, t, seen[f], happened[f], met, counted)
    return seen, happened


def _label_one(
    scene: Scene, p: Placement, t: float, seen: np.ndarray, happened: np.ndarray, met: set[int], counted: set[float]
) -> None:
    grid = seen.shape[0]
    cell, cover = _cell(p, grid), _covered(p, grid)
    if p.name == "lamp":
        seen[cover, _SEEN["lamp"]] = True
        seen[cover, _SEEN[f"{scene.lamp_colour} lamp"]] = True
        start = next((a for a, b in scene.lamp_on if a <= t < b), None)
        if start is not None:
            seen[cover, _SEEN["lamp on"]] = True
            if start not in counted:
                counted.add(start)
                happened[(*cell, _HAPPENED["lamp turns on"])] = True
    elif p.name == "mug":
        seen[cover, _SEEN["mug"]] = True
    elif p.name == "hand":
        action = next((a for a in scene.actions if a.start <= t < a.end), None)
        if action is not None and p.scale > 0.5:
            seen[cover, _SEEN[f"hand {action.kind}"]] = True
            if -1 - action.start not in counted:
                counted.add(-1 - action.start)
                happened[(*cell, _HAPPENED[f"{action.kind} begins"])] = True
        swap = next((s for s in scene.swaps if s.start <= t < s.end), None)
        if swap is not None and swap.start not in counted:
            counted.add(swap.start)
            happened[(*cell, _HAPPENED["swap begins"])] = True
    elif p.name == "cup":
        seen[cover, _SEEN["cup"]] = True
        seen[(*cell, _SEEN["cup centre"])] = True
        if p.track not in met:
            met.add(p.track)
            happened[(*cell, _HAPPENED["first sight of a cup"])] = True
        if p.track == scene.ball_place:
            happened[(*cell, _HAPPENED["cup with the ball"])] = True
    elif scene.kind == "cups":
        if not p.hidden:
            seen[(*cell, _SEEN["ball"])] = True
    elif p.shown and not p.hidden and p.scale >= 0.4:
        toy = scene.toys[p.track]
        for name in (f"{toy.colour} toy", f"{toy.shape} toy"):
            seen[cover, _SEEN[name]] = True
        seen[(*cell, _SEEN["toy centre"])] = True
        if p.track not in met:
            met.add(p.track)
            happened[(*cell, _HAPPENED[f"first sight of a {toy.colour} toy"])] = True
            happened[(*cell, _HAPPENED[f"first sight of a {toy.shape}"])] = True


def asked_about(item: Item, scene: Scene) -> str:
    """Which of `ASKED` a question is about: what its answer has to be read from."""
    return {
        "toys of a colour": f"first sight of a {scene.asked_colour} toy",
        "toys of a shape": f"first sight of a {scene.asked_shape}",
        "actions": f"{scene.asked_action} begins",
        "lamp": "lamp turns on",
        "cups": "first sight of a cup",
        "swaps": "swap begins",
        "lamp colour": "lamp",
        "mug place": "mug",
        "which action": "any action begins",
        "last toy": "last first sight of a toy",
        "hidden ball": "cup with the ball at the end",
    }[item.kind]


def relevant_tokens(asked: str, seen: np.ndarray, happened: np.ndarray) -> np.ndarray:
    """The visual tokens that a question asks about, bool [SAMPLES, grid, grid]; for counts, as many as the count.

    Args:
        asked: one of `ASKED`.
        seen: SEEN labels of the scene.
        happened: HAPPENED labels of the scene.
    """
    if asked in ("lamp", "mug"):
        return seen[..., _SEEN[asked]]
    if asked == "any action begins":
        return np.asarray(happened[..., [_HAPPENED[f"{k} begins"] for k in ACTIONS]].any(-1))
    if asked == "last first sight of a toy":
        sights = np.asarray(happened[..., : len(COLOURS)].any(-1))
        latest = np.nonzero(sights)[0].max()
        return sights & (np.arange(len(happened)) == latest)[:, None, None]
    if asked == "cup with the ball at the end":
        ball = happened[..., _HAPPENED["cup with the ball"]].copy()
        ball[:-1] = False
        return ball
    return happened[..., _HAPPENED[asked]]
