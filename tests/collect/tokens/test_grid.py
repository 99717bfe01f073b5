import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.artefact.json_fields import Fields
from collect.tokens.grid import TokenGrid, cell_spans, even_spans, frame_grid, frame_spans

sizes = st.integers(min_value=1, max_value=7)


def grid_of(n_t: int, n_rows: int, n_cols: int) -> TokenGrid:
    ids = np.arange(n_t, dtype=np.int64) * 5
    return TokenGrid.uniform(n_rows=n_rows, n_cols=n_cols, spans_s=frame_spans(ids / 30.0, 30.0), frame_ids=ids)


@given(sizes, sizes, sizes)
def test_coords_follow_the_rank_formula(n_t: int, n_rows: int, n_cols: int) -> None:
    coords = grid_of(n_t, n_rows, n_cols).coords()
    k = np.arange(n_t * n_rows * n_cols)
    assert np.array_equal(coords[:, 0], k // (n_rows * n_cols))
    assert np.array_equal(coords[:, 1], k % (n_rows * n_cols) // n_cols)
    assert np.array_equal(coords[:, 2], k % n_cols)


@given(sizes, sizes, sizes)
def test_coords_are_a_bijection(n_t: int, n_rows: int, n_cols: int) -> None:
    grid = grid_of(n_t, n_rows, n_cols)
    assert len({tuple(c) for c in grid.coords().tolist()}) == grid.n_tokens == n_t * n_rows * n_cols


@given(sizes, sizes)
def test_boxes_of_a_uniform_grid_partition_the_frame(n_rows: int, n_cols: int) -> None:
    boxes = grid_of(1, n_rows, n_cols).boxes
    areas = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    assert np.isclose(areas.sum(), 1.0)
    assert np.allclose(areas, 1 / (n_rows * n_cols))
    assert np.array_equal(boxes[:, 1:, 0], boxes[:, :-1, 2])  # no gap between neighbours in a row
    assert np.array_equal(boxes[1:, :, 1], boxes[:-1, :, 3])  # nor in a column


def test_box_is_x_first() -> None:
    # 2 rows and 4 columns: row 1, column 2 covers x from 2/4 to 3/4 and y from 1/2 to 1.
    assert grid_of(1, 2, 4).box(1, 2).tolist() == [0.5, 0.5, 0.75, 1.0]


@settings(max_examples=20)
@given(sizes, sizes, sizes)
def test_json_round_trip_is_exact(n_t: int, n_rows: int, n_cols: int) -> None:
    grid = grid_of(n_t, n_rows, n_cols)
    again = TokenGrid.from_fields(Fields(json.loads(json.dumps(grid.to_json())), "grid"))
    for name in ("spans_s", "frame_ids", "row_spans", "col_spans", "boxes"):
        assert np.array_equal(getattr(again, name), getattr(grid, name))
        assert getattr(again, name).dtype == getattr(grid, name).dtype


def test_even_spans_meet() -> None:
    spans = even_spans(3)
    assert spans[0, 0] == 0.0
    assert spans[-1, 1] == 1.0
    assert np.array_equal(spans[1:, 0], spans[:-1, 1])


def test_frame_span_lasts_one_frame() -> None:
    # At 10 frames a second a frame lasts 0.1 s.
    spans = frame_spans(np.array([0.0, 1.0]), 10.0)
    assert np.allclose(spans, [[0.0, 0.1], [1.0, 1.1]])


def test_frame_span_of_merged_frames_ends_with_the_last_of_them() -> None:
    # Five frames in steps of two: (0, 0.5), (1, 1.5) and the last one alone.
    spans = frame_spans(np.array([0.0, 0.5, 1.0, 1.5, 2.0]), 10.0, frames_per_step=2)
    assert np.allclose(spans, [[0.0, 0.6], [1.0, 1.6], [2.0, 2.1]])


def test_cells_of_a_crop_do_not_cover_the_frame() -> None:
    # A frame 100 wide of which the middle 60 are cropped and divided in three: 20 to 40, 40 to 60, 60 to 80.
    assert np.allclose(cell_spans(3, first=20.0, cell=20.0, total=100.0), [[0.2, 0.4], [0.4, 0.6], [0.6, 0.8]])


def test_a_grid_of_merged_frames_has_the_first_frame_of_each() -> None:
    grid = frame_grid(2, 3, np.array([0.0, 0.5, 1.0]), np.array([0, 5, 10]), 10.0, frames_per_step=2)
    assert (grid.n_t, grid.n_rows, grid.n_cols) == (2, 2, 3)
    assert grid.frame_ids.tolist() == [0, 10]
    assert np.allclose(grid.spans_s, [[0.0, 0.6], [1.0, 1.1]])
