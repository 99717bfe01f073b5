from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from collect.tokens.grid import TokenGrid, frame_spans
from features.pictures.render import COLD, HOT, MATCH, MAX_OPACITY, Outline, Panel, heat, render_frame, render_strip

GREY = 100


def make_panel(
    activations: np.ndarray, *, peak: tuple[int, int] | None = None, outlines: tuple[Outline, ...] = ()
) -> Panel:
    grid = TokenGrid.uniform(
        n_rows=2, n_cols=4, spans_s=frame_spans(np.zeros(1), 30.0), frame_ids=np.zeros(1, dtype=np.int64)
    )
    return Panel(
        frame=np.full((100, 200, 3), GREY, dtype=np.uint8),
        activations=activations,
        patches=grid.boxes,
        outlines=outlines,
        time_s=0.0,
        peak=peak,
    )


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int64)


def one_active(row: int, col: int, value: float = 1.0) -> np.ndarray:
    activations = np.zeros((2, 4))
    activations[row, col] = value
    return activations


def test_exactly_the_active_patch_is_heated() -> None:
    silent = pixels(render_frame(make_panel(np.zeros((2, 4))), 1.0, longer_side_px=200))
    active = pixels(render_frame(make_panel(one_active(1, 2)), 1.0, longer_side_px=200))
    changed = (silent != active).any(axis=2)
    expected = np.zeros((100, 200), dtype=bool)
    expected[50:100, 100:150] = True
    np.testing.assert_array_equal(changed, expected)
    assert (silent < GREY).all()


def test_full_heat_is_the_hot_colour_over_the_undimmed_frame() -> None:
    image = pixels(render_frame(make_panel(one_active(0, 0)), 1.0, longer_side_px=200))
    expected = np.array(HOT) * MAX_OPACITY + GREY * (1 - MAX_OPACITY)
    np.testing.assert_allclose(image[20, 20], expected, atol=2)


def test_heat_rises_with_activation_and_stays_in_range() -> None:
    opacities = [heat(share)[1] for share in (0.0, 0.01, 0.1, 0.5, 1.0, 7.0)]
    assert opacities[0] == opacities[1] == 0.0
    assert opacities[2] < opacities[3] < opacities[4] == opacities[5] == MAX_OPACITY
    assert heat(0.02)[0] != COLD
    assert heat(1.0)[0] == HOT


def test_boxes_are_drawn_in_place_and_matches_in_their_colour() -> None:
    box = np.array([0.25, 0.5, 0.75, 1.0])
    for is_match in (True, False):
        outline = Outline(label="", box=box, is_match=is_match)
        image = pixels(render_frame(make_panel(np.zeros((2, 4)), outlines=(outline,)), 1.0, longer_side_px=200))
        assert (tuple(image[75, 50]) == MATCH) == is_match
        assert image[75, 100].max() < GREY


def test_a_box_that_leaves_the_frame_is_cut_at_its_edge() -> None:
    outline = Outline(label="a long name", box=np.array([0.9, -0.2, 1.4, 0.1]), is_match=True)
    image = render_frame(make_panel(np.zeros((2, 4)), peak=(0, 3), outlines=(outline,)), 1.0, longer_side_px=200)
    assert image.size == (200, 100)


@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (8, 1, 8), (11, 2, 8)])
def test_a_strip_holds_all_frames_in_rows_of_eight(n: int, rows: int, columns: int) -> None:
    strip = render_strip([make_panel(one_active(0, 0))] * n, 1.0, height_px=50)
    assert strip.size == (columns * (100 + 6) + 6, rows * (50 + 6 + 34) + 6)


def test_a_latent_without_activation_can_be_drawn() -> None:
    render_strip([make_panel(np.zeros((2, 4)), peak=(0, 0))], 0.0)


@pytest.mark.parametrize("label", ["two\nlines", "a\tb\r\x1b[31m", "\udcff\x00", "\u202egnirts", "杯子" * 500, ""])
def test_any_label_can_be_drawn(label: str) -> None:
    outline = Outline(label=label, box=np.array([0.2, 0.5, 0.7, 0.9]), is_match=True)
    image = render_frame(make_panel(np.zeros((2, 4)), outlines=(outline,)), 1.0, longer_side_px=200)
    assert image.size == (200, 100)
