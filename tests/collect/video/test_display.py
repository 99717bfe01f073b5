"""The picture is followed through the matrix pixel by pixel: x' = a x + c y, y' = b x + d y."""

import itertools
import math

import numpy as np
import pytest

from collect.video.display import AS_STORED, orientation_of

EIGHT = [
    *((a, 0, 0, d) for a, d in itertools.product((1, -1), repeat=2)),
    *((0, b, c, 0) for b, c in itertools.product((1, -1), repeat=2)),
]


def matrix(a: float, b: float, c: float, d: float, scale: float = 65536) -> np.ndarray:
    cells = [[a * scale, b * scale, 0], [c * scale, d * scale, 0], [7, 9, 1 << 30]]
    return np.round(np.array(cells)).astype(np.int64)


@pytest.mark.parametrize("scale", [65536, 32768, 5])
@pytest.mark.parametrize("cells", EIGHT)
def test_each_pixel_goes_where_the_matrix_sends_it(cells: tuple[int, int, int, int], scale: float) -> None:
    a, b, c, d = cells
    image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    turned = orientation_of(matrix(*cells, scale))
    assert turned.is_exact
    shown = turned.apply(image)
    places = {(y, x): (a * x + c * y, b * x + d * y) for y in range(3) for x in range(5)}
    left = min(x for x, _ in places.values())
    top = min(y for _, y in places.values())
    for (y, x), (to_x, to_y) in places.items():
        assert np.array_equal(shown[to_y - top, to_x - left], image[y, x])
    assert shown.shape[:2] == turned.size(3, 5)


@pytest.mark.parametrize("cells", EIGHT)
@pytest.mark.parametrize("degrees", [20, -30, 40])
def test_other_angles_become_the_nearest_quarter_turn_and_are_told(
    cells: tuple[int, int, int, int], degrees: float
) -> None:
    a, b, c, d = cells
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = orientation_of(matrix(a * cos - b * sin, a * sin + b * cos, c * cos - d * sin, c * sin + d * cos))
    exact = orientation_of(matrix(*cells))
    assert not turned.is_exact
    assert turned.apply(image := np.arange(45, dtype=np.uint8).reshape(3, 5, 3)).tolist() == exact.apply(image).tolist()


def test_a_matrix_that_shows_nothing_is_not_meant() -> None:
    assert orientation_of(np.zeros((3, 3), dtype=np.int64)) == AS_STORED
    assert orientation_of(matrix(1, 0, 0, 0)) == AS_STORED
