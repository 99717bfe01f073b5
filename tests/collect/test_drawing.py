"""Ticks are round, scales exact, and an SVG drawing escapes what it is given."""

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.drawing import Drawing, Scale, linear_ticks, log_ticks, shorten


@given(low=st.floats(-1e6, 1e6), spread=st.floats(1e-3, 1e6))
def test_linear_ticks_are_few_round_and_inside(low: float, spread: float) -> None:
    ticks = linear_ticks(low, low + spread)
    assert 2 <= len(ticks) <= 6
    assert all(low - 1e-6 * spread <= tick <= low + spread * (1 + 1e-6) for tick in ticks)
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-4)


def test_ticks_by_hand() -> None:
    assert linear_ticks(-0.5, 1.6) == [-0.5, 0.0, 0.5, 1.0, 1.5]
    assert log_ticks(0.03, 1.2) == [0.05, 0.1, 0.2, 0.5, 1.0]


def test_scales_map_ends_to_ends() -> None:
    linear = Scale(low=-1, high=3, start_px=100, stop_px=300)
    assert [linear(value) for value in (-1, 1, 3)] == [100, 200, 300]
    logarithmic = Scale(low=0.01, high=1, start_px=0, stop_px=100, log=True)
    assert logarithmic(0.1) == pytest.approx(50)
    assert logarithmic(0.0) == 0


def test_long_names_are_cut() -> None:
    assert (shorten("object counting", 20), shorten("abcdef", 4)) == ("object counting", "abc…")
    assert len(shorten("a very long name of an object", 20)) <= 20


def test_text_is_escaped() -> None:
    drawing = Drawing(10, 10, 'a "title" & <more>')
    drawing.text(1, 2, "</svg><script>")
    root = ElementTree.fromstring(drawing.finish())
    assert root.attrib["aria-label"] == 'a "title" & <more>'
    assert [(element.tag, element.text) for element in root] == [("text", "</svg><script>")]
