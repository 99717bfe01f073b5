from __future__ import annotations

import numpy as np
import pytest

from features.labels.geometry import (
    centre_patches,
    cover_fractions,
    covering_tracks,
    first_sights,
    hidden_tracks,
    moving_tracks,
    overlap_fractions,
    track_boxes,
)
from tests.features.labels.annotated import LEFT, RIGHT, make_grid, make_segment, make_track


def test_cover_fractions_by_hand() -> None:
    # x 0.125 to 0.5 covers half of column 0 and all of column 1; y 0.25 to 1 covers half of row 0 and all of row 1.
    cover = cover_fractions(np.array([[[0.125, 0.25, 0.5, 1.0]]]), make_grid().boxes.reshape(-1, 4))
    np.testing.assert_allclose(cover[0, 0], [0.25, 0.5, 0, 0, 0.5, 1.0, 0, 0])


def test_cover_is_zero_without_a_box_and_on_a_patch_without_area() -> None:
    patches = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 0.5, 1.0]])
    cover = cover_fractions(np.array([[[np.nan] * 4, [0.0, 0.0, 1.0, 1.0]]]), patches)
    np.testing.assert_array_equal(cover[0], [[0.0, 0.0], [1.0, 0.0]])


def test_boxes_are_interpolated_between_annotated_frames() -> None:
    track = make_track(0, "cup", [[0.0, 0.0, 0.2, 0.2], [0.4, 0.0, 0.6, 0.2]])
    boxes = track_boxes([track], np.array([0.0, 0.25, 1.0]), 0.05)[0]
    np.testing.assert_allclose(boxes, [[0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.4, 0.0, 0.6, 0.2]])


@pytest.mark.parametrize(("gap_s", "left"), [(1.1, 0.75 * 0.5 / 1.1), (1.2, 0.0)])
def test_boxes_are_not_interpolated_over_long_gaps(gap_s: float, left: float) -> None:
    track = make_track(0, "cup", [LEFT, RIGHT], (0.0, gap_s))  # from x 0 to x 0.75
    assert track_boxes([track], np.array([0.5]), 0.05)[0, 0, 0] == pytest.approx(left)


def test_there_is_no_box_far_from_every_annotated_frame() -> None:
    boxes = track_boxes([make_track(0, "cup", [LEFT, LEFT], (0.0, 5.0))], np.array([1.0, 1.2, 3.8, 4.0]), 0.05)[0]
    assert (~np.isnan(boxes[:, 0])).tolist() == [True, False, False, True]


def test_a_track_that_comes_or_goes_between_annotated_frames_has_a_box_near_those_that_have_it() -> None:
    cup = make_track(0, "cup", [LEFT, RIGHT], (1.0, 2.0))
    mug = make_track(1, "mug", [LEFT] * 4, (0.0, 1.0, 2.0, 3.0))
    boxes = track_boxes([cup, mug], np.array([0.0, 0.4, 0.6, 2.4, 2.6, 3.0]), 0.05)
    assert (~np.isnan(boxes[0, :, 0])).tolist() == [False, False, True, True, False, False]
    np.testing.assert_array_equal(boxes[0, 2:4], [LEFT, RIGHT])
    assert not np.isnan(boxes[1]).any()


def test_boxes_of_the_last_annotated_frame_hold_for_the_usual_spacing() -> None:
    boxes = track_boxes([make_track(0, "cup", [RIGHT, LEFT], (1.0, 2.0))], np.array([2.5, 3.09, 3.2]), 0.05)[0]
    np.testing.assert_array_equal(boxes[:2], [LEFT, LEFT])
    assert np.isnan(boxes[2]).all()


def test_annotated_frames_may_come_in_any_order_and_twice() -> None:
    boxes = [[0.4, 0.0, 0.6, 0.2], [0.0, 0.0, 0.2, 0.2], [0.4, 0.0, 0.6, 0.2]]
    found = track_boxes([make_track(0, "cup", boxes, (1.0, 0.0, 1.0))], np.array([0.25]), 0.05)
    np.testing.assert_allclose(found[0, 0], [0.1, 0.0, 0.3, 0.2])


def test_a_single_annotated_frame_and_no_frame() -> None:
    tracks = [make_track(0, "cup", [LEFT], (1.0,)), make_track(1, "cup", [], ())]
    boxes = track_boxes(tracks, np.array([0.0, 1.0, 2.0, 3.0]), 0.05)
    assert (~np.isnan(boxes[:, :, 0])).tolist() == [[True, True, True, False], [False] * 4]


def test_only_masked_objects_hide_and_only_under_occluders_where_there_are_any() -> None:
    boxes, times = np.array([[LEFT], [LEFT], [LEFT], [RIGHT]]), np.array([0.0])
    cover = make_track(0, "cup", [LEFT], (0.0,), is_occluder=True)
    ball, coin = make_track(1, "ball", [LEFT], (0.0,), is_masked=True), make_track(2, "coin", [LEFT], (0.0,))
    beside = make_track(3, "pea", [RIGHT], (0.0,), is_masked=True)
    assert hidden_tracks([cover, ball, coin, beside], boxes, times)[:, 0].tolist() == [False, True, False, False]
    assert hidden_tracks([coin, ball, coin, beside], boxes, times)[:, 0].tolist() == [False, True, False, True]


def test_a_track_hides_where_its_nearest_annotated_frame_is_masked() -> None:
    ball = make_track(0, "ball", [LEFT] * 3, (0.0, 1.0, 2.0), is_masked=[False, True, False])
    times = np.array([0.0, 0.4, 0.6, 1.0, 1.4, 1.6, 2.0])
    hidden = hidden_tracks([ball], track_boxes([ball], times, 0.05), times)
    assert hidden[0].tolist() == [False, False, True, True, True, False, False]


def test_nothing_hides_where_it_has_no_box() -> None:
    ball = make_track(0, "ball", [LEFT], (1.0,), is_masked=True)
    times = np.array([-0.5, 1.0, 2.5])
    assert hidden_tracks([ball], track_boxes([ball], times, 0.05), times)[0].tolist() == [False, True, False]


def test_overlap_fractions_by_hand() -> None:
    # Spans of 0.1 s from 0 and from 1; the segment from 0.025 to 1.05 has three quarters of one and half of the other.
    overlap = overlap_fractions([make_segment("lift", 0.025, 1.05)], make_grid().spans_s)
    np.testing.assert_allclose(overlap, [[0.75, 0.5]])


def test_the_centre_of_a_box_is_in_one_patch() -> None:
    # The middle of the first box is the corner of patches 0, 1, 4 and 5, and belongs to the one that begins there.
    boxes = np.array([[[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.2, 0.2], [np.nan] * 4]])
    centre = centre_patches(boxes, make_grid().boxes.reshape(-1, 4))[0]
    assert [np.flatnonzero(row).tolist() for row in centre] == [[5], [0], []]


def test_a_track_moves_at_both_ends_of_a_shift_of_a_quarter_of_its_size() -> None:
    # Boxes are 0.2 wide and high: 0.06 is more than a quarter of that, 0.04 is not.
    left = np.array([0.0, 0.04, 0.10, 0.10])
    boxes = np.stack([left, np.zeros(4), left + 0.2, np.full(4, 0.2)], axis=1)[None]
    assert moving_tracks(boxes).tolist() == [[False, True, True, False]]
    boxes[0, 2] = np.nan
    assert not moving_tracks(boxes).any()


def test_what_lies_over_something_hidden_by_half_covers_it() -> None:
    box, half, third = [0.0, 0.0, 0.3, 1.0], [0.0, 0.0, 0.15, 1.0], [0.0, 0.0, 0.1, 1.0]
    boxes = np.array([[box, box], [half, half], [third, third]])
    hidden = np.array([[True, False], [False, False], [False, False]])
    assert covering_tracks(boxes, hidden).tolist() == [[False, False], [True, False], [False, False]]


def test_what_was_not_there_in_an_annotated_frame_arrives_with_its_first_box() -> None:
    here, away = [0.0, 0.0, 1.0, 1.0], [np.nan] * 4
    first, arrives = first_sights(np.array([[here, here, here], [away, here, away], [away, away, here]]))
    assert first.tolist() == [[True, False, False], [False, True, False], [False, False, True]]
    assert arrives.tolist() == [[False, False, False], [False, True, False], [False, False, True]]
    # Nothing is annotated at the first time, so that nobody knows whether it was there.
    first, arrives = first_sights(np.array([[away, here]]))
    assert (first.tolist(), arrives.tolist()) == ([[False, True]], [[False, False]])
