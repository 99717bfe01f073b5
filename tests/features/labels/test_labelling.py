from __future__ import annotations

import numpy as np
import pytest

from features.labels.labelling import OBJECTS, label_video
from features.labels.unit_labels import Space, stack
from tests.features.labels.annotated import (
    LEFT,
    RIGHT,
    make_grid,
    make_segment,
    make_track,
    make_video,
    negatives,
    units,
)

ACTION_FRAMES, ACTION_TOKENS = Space("action", "frame"), Space("action", "token")


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
    video = make_video([make_track(0, "cup", [LEFT], (0.0,))])
    labels = label_video(video, make_grid([0.0, 2.0]), {OBJECTS: ("cup",)})[OBJECTS]
    assert not labels.eligible[8:].any()
    assert not labels.background[8:].any()


def test_boxes_that_persist_while_hidden_stay_positive_and_are_marked() -> None:
    cup = make_track(0, "cup", [RIGHT, LEFT], is_occluder=True)
    ball = make_track(1, "ball", [[0.0, 0.5, 0.25, 1.0]] * 2, is_masked=True)
    labels = label_video(make_video([cup, ball]), make_grid(), {OBJECTS: ("ball",)})[OBJECTS]
    assert units(labels.positive) == [4, 12]
    assert units(labels.hidden) == [12]


def test_frames_during_an_action_are_positive_and_others_negative() -> None:
    video = make_video(actions=[make_segment("Lifting", 0.5, 1.5), make_segment("tapping", 0.97, 2.03)])
    vocabulary = {ACTION_FRAMES: ("lifting", "tapping")}
    labels = label_video(video, make_grid([0.0, 1.0, 2.0, 3.0]), vocabulary)[ACTION_FRAMES]
    assert units(labels.positive, 0) == [1]
    assert negatives(labels, 0) == [0, 2, 3]
    assert units(labels.positive, 1) == [1]
    assert negatives(labels, 1) == [0, 3]  # 0.3 of frame 2 lies in the segment: neither


def test_frames_of_a_video_without_segments_of_a_kind_are_its_negatives() -> None:
    video = make_video(sounds=[make_segment("clap", 0.0, 1.0)])
    labels = label_video(video, make_grid(), {ACTION_FRAMES: ("lift",), Space("sound", "frame"): ("clap",)})
    assert negatives(labels[ACTION_FRAMES]) == [0, 1]
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
    for times in ([0.0, 1.0, 2.0, 3.0], [1.0, 2.0], [2.0, 3.0, 5.0]):
        vocabulary = {OBJECTS: ("cup",), ACTION_FRAMES: ("lift",)}
        labels = label_video(make_video([moving, still], [action]), make_grid(times), vocabulary)
        expected = {0.0: [0, 4], 1.0: [0, 4], 2.0: [3, 7], 3.0: [3, 7], 5.0: []}
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
