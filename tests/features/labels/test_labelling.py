"""A frame of 4 x 2 patches, each 0.25 wide and 0.5 high; patch k has row k // 4 and column k % 4."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from collect.data.perception_test import Segment, Track, Video
from collect.tokens.grid import TokenGrid, frame_spans
from features.labels.labelling import (
    OBJECTS,
    Space,
    VideoLabels,
    cover_fractions,
    hidden_tracks,
    label_video,
    overlap_fractions,
    stack,
    track_boxes,
)

ACTION_FRAMES, ACTION_TOKENS = Space("action", "frame"), Space("action", "token")
FPS = 10.0


def make_grid(times_s: Sequence[float] = (0.0, 1.0)) -> TokenGrid:
    times = np.array(times_s, dtype=np.float64)
    return TokenGrid.uniform(
        n_rows=2, n_cols=4, spans_s=frame_spans(times, FPS), frame_ids=np.round(times * FPS).astype(np.int64)
    )


def make_track(
    id: int,
    label: str,
    boxes: Sequence[Sequence[float]],
    times_s: Sequence[float] = (0.0, 1.0),
    *,
    is_masked: bool | Sequence[bool] = False,
    is_occluder: bool = False,
) -> Track:
    times = np.array(times_s, dtype=np.float64)
    return Track(
        id=id,
        label=label,
        is_occluder=is_occluder,
        is_masked=np.broadcast_to(np.array(is_masked, dtype=bool), times.shape),
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        frame_ids=np.round(times * FPS).astype(np.int64),
        times_s=times,
    )


def make_video(tracks: Sequence[Track] = (), actions: Sequence[Segment] = (), sounds: Sequence[Segment] = ()) -> Video:
    return Video(
        video_id="video",
        path=None,
        split="train",
        frame_rate=FPS,
        n_frames=40,
        height=100,
        width=200,
        tracks=tuple(tracks),
        actions=tuple(actions),
        sounds=tuple(sounds),
    )


def make_segment(label: str, start_s: float, end_s: float, parents: tuple[int, ...] = ()) -> Segment:
    return Segment(id=0, label=label, label_id=0, parent_objects=parents, start_s=start_s, end_s=end_s)


def units(entries: np.ndarray, label: int = 0) -> list[int]:
    return entries[entries[:, 1] == label, 0].tolist()


def negatives(labels: VideoLabels, label: int = 0) -> list[int]:
    return sorted(set(np.flatnonzero(labels.eligible)) - set(units(labels.touched, label)))


LEFT = [0.0, 0.0, 0.25, 1.0]
RIGHT = [0.75, 0.0, 1.0, 1.0]


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


@pytest.mark.parametrize(("gap_s", "has_box"), [(1.1, True), (1.2, False)])
def test_boxes_are_not_interpolated_over_long_gaps(gap_s: float, has_box: bool) -> None:
    track = make_track(0, "cup", [LEFT, LEFT], (0.0, gap_s))
    boxes = track_boxes([track], np.array([0.0, 0.5, gap_s]), 0.05)[0]
    assert (~np.isnan(boxes[:, 0])).tolist() == [True, has_box, True]


def test_there_is_no_box_before_the_first_and_after_the_last_annotated_frame() -> None:
    track = make_track(0, "cup", [LEFT, LEFT], (1.0, 2.0))
    boxes = track_boxes([track], np.array([0.9, 0.96, 2.04, 2.1]), 0.05)[0]
    assert (~np.isnan(boxes[:, 0])).tolist() == [False, True, True, False]


def test_annotated_frames_may_come_in_any_order_and_twice() -> None:
    boxes = [[0.4, 0.0, 0.6, 0.2], [0.0, 0.0, 0.2, 0.2], [0.4, 0.0, 0.6, 0.2]]
    found = track_boxes([make_track(0, "cup", boxes, (1.0, 0.0, 1.0))], np.array([0.25]), 0.05)
    np.testing.assert_allclose(found[0, 0], [0.1, 0.0, 0.3, 0.2])


def test_a_single_annotated_frame_and_no_frame() -> None:
    tracks = [make_track(0, "cup", [LEFT], (1.0,)), make_track(1, "cup", [], ())]
    boxes = track_boxes(tracks, np.array([0.0, 1.0]), 0.05)
    assert (~np.isnan(boxes[:, :, 0])).tolist() == [[False, True], [False, False]]


def test_tokens_on_other_boxes_are_negative_and_partly_covered_ones_are_dropped() -> None:
    cup = make_track(0, "cup", [[0.0, 0.0, 0.35, 0.5]] * 2)  # all of patch 0, 0.4 of patch 1
    ball = make_track(1, "ball", [[0.25, 0.0, 1.0, 0.5]] * 2)  # patches 1, 2 and 3
    labels = label_video(make_video([cup, ball]), make_grid([0.0]), {OBJECTS: ("ball", "cup")})[OBJECTS]
    assert units(labels.positive, 1) == [0]
    assert negatives(labels, 1) == [2, 3]
    assert units(labels.positive, 0) == [1, 2, 3]
    assert negatives(labels, 0) == [0]
    assert np.flatnonzero(labels.background).tolist() == [4, 5, 6, 7]


def test_two_objects_of_one_name_are_one_label_and_names_nest() -> None:
    tracks = [make_track(3, "red cup", [LEFT] * 2), make_track(9, "blue cup", [RIGHT] * 2)]
    labels = label_video(make_video(tracks), make_grid([0.0]), {OBJECTS: ("cup", "red")})[OBJECTS]
    assert units(labels.positive, 0) == [0, 3, 4, 7]
    assert negatives(labels, 0) == []
    assert units(labels.positive, 1) == [0, 4]
    assert negatives(labels, 1) == [3, 7]


def test_a_box_over_most_of_the_frame_makes_no_token_negative_or_foreground() -> None:
    tracks = [make_track(0, "table", [[0.0, 0.0, 1.0, 1.0]] * 2), make_track(1, "cup", [LEFT] * 2)]
    labels = label_video(make_video(tracks), make_grid([0.0]), {OBJECTS: ("cup", "table")})[OBJECTS]
    assert negatives(labels, 0) == []
    assert len(units(labels.positive, 1)) == 8
    assert np.flatnonzero(labels.background).tolist() == [1, 2, 3, 5, 6, 7]


def test_frames_without_boxes_have_neither_negatives_nor_background() -> None:
    labels = label_video(make_video([make_track(0, "cup", [LEFT], (0.0,))]), make_grid(), {OBJECTS: ("cup",)})[OBJECTS]
    assert not labels.eligible[8:].any()
    assert not labels.background[8:].any()


def test_boxes_that_persist_while_hidden_stay_positive_and_are_marked() -> None:
    cup = make_track(0, "cup", [RIGHT, LEFT], is_occluder=True)
    ball = make_track(1, "ball", [[0.0, 0.5, 0.25, 1.0]] * 2, is_masked=True)
    labels = label_video(make_video([cup, ball]), make_grid(), {OBJECTS: ("ball",)})[OBJECTS]
    assert units(labels.positive) == [4, 12]
    assert units(labels.hidden) == [12]


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
    times = np.array([0.0, 1.0, 2.0])
    assert hidden_tracks([ball], track_boxes([ball], times, 0.05), times)[0].tolist() == [False, True, False]


def test_overlap_fractions_by_hand() -> None:
    # Spans of 0.1 s from 0 and from 1; the segment from 0.025 to 1.05 has three quarters of one and half of the other.
    overlap = overlap_fractions([make_segment("lift", 0.025, 1.05)], make_grid().spans_s)
    np.testing.assert_allclose(overlap, [[0.75, 0.5]])


def test_frames_during_an_action_are_positive_and_others_negative() -> None:
    video = make_video(actions=[make_segment("Lifting", 0.5, 1.5), make_segment("tapping", 1.97, 2.03)])
    vocabulary = {ACTION_FRAMES: ("lifting", "tapping")}
    labels = label_video(video, make_grid([0.0, 1.0, 2.0, 3.0]), vocabulary)[ACTION_FRAMES]
    assert units(labels.positive, 0) == [1]
    assert negatives(labels, 0) == [0, 2, 3]
    assert units(labels.positive, 1) == []
    assert negatives(labels, 1) == [0, 1, 3]  # 0.3 of frame 2 lies in the segment: neither


def test_a_video_without_segments_has_no_negative_frames() -> None:
    video = make_video(sounds=[make_segment("clap", 0.0, 1.0)])
    labels = label_video(video, make_grid(), {ACTION_FRAMES: ("lift",), Space("sound", "frame"): ("clap",)})
    assert not labels[ACTION_FRAMES].eligible.any()
    assert units(labels[Space("sound", "frame")].positive) == [0]
    assert negatives(labels[Space("sound", "frame")]) == [1]


def test_tokens_of_an_action_are_those_on_its_objects_which_are_found_by_id() -> None:
    tracks = [make_track(7, "cup", [LEFT] * 2), make_track(2, "ball", [RIGHT] * 2)]
    video = make_video(tracks, [make_segment("lift", 0.0, 0.5, parents=(2, 99))])
    labels = label_video(video, make_grid(), {ACTION_TOKENS: ("lift",)})[ACTION_TOKENS]
    assert units(labels.positive) == [3, 7]
    # The other object, and both objects while nothing is lifted.
    assert negatives(labels) == [0, 4, 8, 11, 12, 15]


@pytest.mark.parametrize("parents", [(), (-1,), (99,)])
def test_an_action_without_known_objects_makes_its_frames_neither(parents: tuple[int, ...]) -> None:
    video = make_video([make_track(7, "cup", [LEFT] * 2)], [make_segment("lift", 0.0, 0.5, parents)])
    labels = label_video(video, make_grid(), {ACTION_TOKENS: ("lift",)})[ACTION_TOKENS]
    assert units(labels.positive) == []
    assert negatives(labels) == [8, 12]


def test_annotations_keep_their_seconds_on_a_grid_of_another_length() -> None:
    moving = make_track(0, "cup", [LEFT, LEFT, RIGHT, RIGHT], (0.0, 1.0, 2.0, 3.0))
    still = make_track(1, "mug", [[0.25, 0.0, 0.5, 0.5]] * 4, (0.0, 1.0, 2.0, 3.0))
    action = make_segment("lift", 1.5, 3.1)
    for times in ([0.0, 1.0, 2.0, 3.0], [1.0, 2.0], [2.0, 3.0, 4.0]):
        vocabulary = {OBJECTS: ("cup",), ACTION_FRAMES: ("lift",)}
        labels = label_video(make_video([moving, still], [action]), make_grid(times), vocabulary)
        expected = {0.0: [0, 4], 1.0: [0, 4], 2.0: [3, 7], 3.0: [3, 7], 4.0: []}
        tokens = [8 * t + patch for t, time in enumerate(times) for patch in expected[time]]
        assert units(labels[OBJECTS].positive) == tokens
        assert units(labels[ACTION_FRAMES].positive) == [t for t, time in enumerate(times) if 1.5 <= time < 3.1]


def test_stacked_labels_are_those_of_each_video() -> None:
    grid = make_grid()
    parts = [
        label_video(make_video([make_track(0, "cup", [box] * 2)]), grid, {OBJECTS: ("ball", "cup")})[OBJECTS]
        for box in (LEFT, RIGHT)
    ]
    stacked = stack(parts, ("ball", "cup"))
    positive, negative = stacked.masks(1)
    assert np.flatnonzero(positive).tolist() == [0, 4, 8, 12, 16 + 3, 16 + 7, 16 + 11, 16 + 15]
    assert not negative.any()
    _, negative = stacked.masks(0)
    assert negative.tolist() == positive.tolist()
    some = stacked.select(np.array([19, 0]), [1])
    assert some.names == ("cup",)
    assert some.positive.toarray().tolist() == [[True], [True]]
