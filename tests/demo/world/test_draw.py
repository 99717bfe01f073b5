import numpy as np
import pytest

from demo.world.draw import Painter
from demo.world.motion import placements
from demo.world.script import draw_scene

TABLETOP = next(s for s in (draw_scene(3, i) for i in range(50)) if s.kind == "tabletop" and s.lamp_on)
CUPS = next(s for s in (draw_scene(3, i) for i in range(50)) if s.kind == "cups")


@pytest.mark.parametrize("scene", [TABLETOP, CUPS], ids=["tabletop", "cups"])
def test_a_frame_has_the_video_s_size_and_type(scene) -> None:
    frame = Painter(scene).frame(1.0)
    assert frame.shape == (scene.height, scene.width, 3)
    assert frame.dtype == np.uint8


def test_the_same_scene_is_drawn_the_same() -> None:
    first, second = Painter(TABLETOP), Painter(TABLETOP)
    for t in (0.0, 1.5):
        assert np.array_equal(first.frame(t), second.frame(t))


def test_the_lamp_is_brighter_while_it_is_on() -> None:
    painter = Painter(TABLETOP)
    start, end = TABLETOP.lamp_on[0]

    def brightness(t: float) -> float:
        lamp = next(p for p in placements(TABLETOP, t) if p.name == "lamp")
        x1, y1, x2, y2 = lamp.box
        shade = painter.frame(t)[
            int(y1 * painter.height) : int((y1 + y2) / 2 * painter.height),
            int(x1 * painter.width) : int(x2 * painter.width),
        ]
        return float(shade.mean())

    assert brightness((start + end) / 2) > brightness(max(start - 0.1, 0.0)) + 20


def test_a_toy_changes_the_pixels_of_its_box_and_few_others() -> None:
    scene = next(
        s
        for s in (draw_scene(4, i) for i in range(200))
        if s.kind == "tabletop" and not s.camera_moving and any(t.visible[0][0] > 2 for t in s.toys)
    )
    toy = next(t for t in scene.toys if t.visible[0][0] > 2)
    t = min(toy.visible[0][0] + 0.6, scene.clip_s)
    with_toy = Painter(scene).frame(t).astype(int)
    import dataclasses

    without = dataclasses.replace(toy, visible=((scene.clip_s + 5, scene.clip_s + 6),))
    empty = dataclasses.replace(scene, toys=tuple(without if o.id == toy.id else o for o in scene.toys), actions=())
    bare = Painter(dataclasses.replace(scene, actions=())).frame(t).astype(int)
    changed = np.abs(bare - Painter(empty).frame(t).astype(int)).max(-1) > 8
    x1, y1, x2, y2 = next(p for p in placements(scene, t) if p.track == toy.id).box
    rows, cols = changed.nonzero()
    h, w = changed.shape
    inside = (cols >= x1 * w - 8) & (cols <= x2 * w + 8) & (rows >= y1 * h - 2) & (rows <= y2 * h + 10)
    assert with_toy.shape == bare.shape
    assert len(rows) > 150
    assert inside.mean() > 0.97
