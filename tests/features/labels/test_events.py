from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from collect.data.perception_test import Segment, Track
from features.labels.events import event_frames
from features.labels.labelling import ROLES, label_video, names_of
from features.labels.unit_labels import Space
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

FRAMES, TOKENS = Space("action", "frame"), Space("action", "token")
TIMES = (0.0, 1.0, 2.0, 3.0)
HAND, CUP = make_track(0, "hand", [LEFT] * 4, TIMES), make_track(1, "red cup", [RIGHT] * 4, TIMES)


def frames(segments: Sequence[Segment], name: str) -> list[int]:
    """Positive frames of a name."""
    return units(label_video(make_video(actions=segments), make_grid(TIMES), {FRAMES: (name,)})[FRAMES].positive)


def roles(segments: Sequence[Segment], name: str, tracks: Sequence[Track] = (HAND, CUP)) -> list[int]:
    """Positive tokens of a name of a part; the hand covers patches 0 and 4, the cup 3 and 7 of each frame of 8."""
    return units(label_video(make_video(tracks, segments), make_grid(TIMES), {ROLES: (name,)})[ROLES].positive)


def test_an_event_between_two_frames_belongs_to_the_frame_that_ends_its_interval() -> None:
    # A frame lasts from 1.0 to 1.1: the click from 1.2 to 1.4 shows in none, and frame 2 is the first after it began.
    assert frames([make_segment("click", 1.2, 1.4)], "click") == [2]
    assert frames([make_segment("click", 0.98, 1.02)], "click") == [1]  # 0.2 of frame 1 is too little to show it
    assert frames([make_segment("click", 3.2, 3.4)], "click") == []  # no frame comes after it


def test_the_overlap_of_an_event_that_shows_is_left_as_it_is() -> None:
    degree = event_frames([make_segment("lift", 0.5, 2.03)], make_grid(TIMES).spans_s)
    np.testing.assert_allclose(degree, [[0.0, 1.0, 0.3, 0.0]])


@pytest.mark.parametrize(
    ("name", "expected"), [("lift", [1, 2]), ("lift begins", [1]), ("after lift", [3]), ("since lift", [1, 2, 3])]
)
def test_the_forms_of_an_event(name: str, expected: list[int]) -> None:
    assert frames([make_segment("lift", 0.5, 2.5)], name) == expected


def test_a_click_is_over_in_the_frame_that_shows_what_it_did() -> None:
    click = [make_segment("click", 1.2, 1.4)]
    assert frames(click, "click begins") == frames(click, "after click") == [2]
    assert frames(click, "since click") == [2, 3]


def test_nothing_comes_after_an_event_that_outlasts_the_clip() -> None:
    assert frames([make_segment("lift", 2.5, 9.0)], "after lift") == []


def test_tokens_of_the_forms_are_on_the_objects_that_take_part() -> None:
    video = make_video([HAND, CUP], [make_segment("lift", 0.5, 2.5, parents=(1,))])
    labels = label_video(video, make_grid(TIMES), {TOKENS: ("lift", "lift begins", "after lift")})[TOKENS]
    assert [units(labels.positive, form) for form in range(3)] == [[11, 15, 19, 23], [11, 15], [27, 31]]


def test_who_acts_and_what_is_acted_on() -> None:
    lift = [make_segment("lift", 0.5, 1.5, parents=(0, 1))]
    assert roles(lift, "hand in lift") == roles(lift, "actor of lift") == [8, 12]
    assert roles(lift, "cup in lift") == roles(lift, "object of lift") == roles(lift, "object of any event") == [11, 15]
    assert roles(lift, "centre of cup in lift") == [15]
    assert roles(lift, "cup during lift") == []  # those who take part are known


def test_objects_are_named_with_an_event_whose_objects_are_not_annotated() -> None:
    lift = [make_segment("lift", 0.5, 2.5, parents=(-1,))]
    assert roles(lift, "cup during lift") == [11, 15, 19, 23]
    assert roles(lift, "cup when lift begins") == [11, 15]
    assert roles(lift, "cup since lift") == [11, 15, 19, 23, 27, 31]
    assert roles(lift, "centre of cup when lift begins") == [15]


def test_every_name_that_is_counted_is_one_that_labels_tokens() -> None:
    segments = [make_segment("lift", 0.5, 1.5, parents=(0, 1)), make_segment("swap", 1.5, 2.5)]
    video = make_video([HAND, CUP], segments)
    names = tuple(sorted(names_of(video)[ROLES]))
    found = label_video(video, make_grid(TIMES), {ROLES: names})[ROLES]
    assert {names[label] for label in found.positive[:, 1]} == set(names)


def test_any_negative_of_an_event_is_on_some_object() -> None:
    video = make_video([HAND, CUP], [make_segment("lift", 0.5, 1.5, parents=(0,))])
    labels = label_video(video, make_grid([1.0]), {ROLES: ("hand in lift",)})[ROLES]
    assert negatives(labels) == [3, 7]
