import numpy as np

from demo.vlm.token_labels import HAPPENED, SEEN, token_labels
from demo.world.script import draw_scene

SCENES = [draw_scene(8, i) for i in range(80)]


def test_as_many_first_sights_as_toys_of_the_asked_colour() -> None:
    for scene in SCENES:
        if scene.kind == "tabletop":
            _, happened = token_labels(scene, 8)
            column = HAPPENED.index(f"first sight of a {scene.asked_colour} toy")
            # a toy that is first seen while a hand covers it counts when the hand lets go, which may be never
            covered = sum(a.kind == "cover" for a in scene.actions)
            assert scene.counts["colour"].value - covered <= happened[..., column].sum() <= scene.counts["colour"].value


def test_as_many_onsets_as_lights_actions_and_swaps() -> None:
    for scene in SCENES:
        _, happened = token_labels(scene, 8)
        assert happened[..., HAPPENED.index("lamp turns on")].sum() == len(scene.lamp_on)
        assert happened[..., HAPPENED.index("swap begins")].sum() == len(scene.swaps)
        for kind in ("lift", "tap", "cover"):
            n = sum(a.kind == kind for a in scene.actions)
            assert n - 1 <= happened[..., HAPPENED.index(f"{kind} begins")].sum() <= n


def test_a_toy_that_returns_is_not_met_twice() -> None:
    scene = next(s for s in SCENES if any(len(t.visible) == 2 for t in s.toys))
    _, happened = token_labels(scene, 8)
    first_sights = happened[..., :5].sum()
    assert first_sights <= len(scene.toys)


def test_colour_and_shape_cover_the_same_cells() -> None:
    seen, _ = token_labels(next(s for s in SCENES if s.kind == "tabletop"), 8)
    colours = seen[..., : SEEN.index("ball toy")].any(-1)
    shapes = seen[..., SEEN.index("ball toy") : SEEN.index("toy centre")].any(-1)
    assert np.array_equal(colours, shapes)
    assert colours.any()
