from __future__ import annotations

from collections.abc import Sequence

import pytest

from collect.data.perception_test import Track
from features.labels.labelling import PARTS, SIGHTS, STATES, is_derived, label_video, names_of
from features.labels.unit_labels import Space
from tests.features.labels.annotated import LEFT, RIGHT, make_grid, make_track, make_video, units

TIMES = (0.0, 1.0, 2.0)


def tokens(space: Space, name: str, *tracks: Track) -> list[int]:
    """Positive tokens of a name in three frames of 8."""
    return units(label_video(make_video(tracks), make_grid(TIMES), {space: (name,)})[space].positive)


def test_parts_by_hand() -> None:
    # All of patch 0 and 0.4 of patch 1; the middle, x 0.175 and y 0.25, is in patch 0.
    cup = make_track(0, "red cup", [[0.0, 0.0, 0.35, 0.5]], (0.0,))
    assert tokens(PARTS, "centre of cup", cup)[:1] == tokens(PARTS, "centre of thing", cup)[:1] == [0]
    assert tokens(PARTS, "edge of red", cup)[:1] == [1]


def test_the_scene_has_neither_centre_nor_edge() -> None:
    table = make_track(0, "table", [[0.0, 0.0, 1.0, 0.9]], (0.0,))
    assert tokens(PARTS, "centre of table", table) == tokens(PARTS, "edge of table", table) == []


def test_first_sights_and_arrivals() -> None:
    mug = make_track(0, "mug", [LEFT] * 3, TIMES)
    cup = make_track(1, "cup", [RIGHT] * 2, TIMES[1:])
    assert tokens(SIGHTS, "first sight of cup", mug, cup) == tokens(SIGHTS, "arrival of cup", mug, cup) == [11, 15]
    assert tokens(SIGHTS, "centre of cup at first sight", mug, cup) == [15]
    assert tokens(SIGHTS, "first sight of mug", mug, cup) == [0, 4]
    assert tokens(SIGHTS, "arrival of mug", mug, cup) == []


def test_a_first_sight_has_the_middle_of_a_box_that_covers_no_patch_by_half() -> None:
    pea = make_track(0, "pea", [[0.3, 0.6, 0.4, 0.7]] * 3, TIMES)
    assert tokens(SIGHTS, "first sight of pea", pea) == [5]


def test_hidden_and_visible_are_of_what_hides_at_some_time() -> None:
    ball = make_track(0, "ball", [LEFT] * 3, TIMES, is_masked=[False, True, True])
    mug = make_track(1, "mug", [RIGHT] * 3, TIMES)
    assert tokens(STATES, "hidden ball", ball, mug) == [8, 12, 16, 20]
    assert tokens(STATES, "visible ball", ball, mug) == tokens(STATES, "visible thing", ball, mug) == [0, 4]
    assert tokens(STATES, "centre of hidden ball", ball, mug) == [12, 20]
    assert tokens(STATES, "still ball", ball, mug) == [0, 4]


def test_moving_and_still() -> None:
    cup = make_track(0, "cup", [LEFT, LEFT, RIGHT], TIMES)
    assert tokens(STATES, "still cup", cup) == [0, 4]
    assert tokens(STATES, "moving cup", cup) == [8, 12, 19, 23]


def test_what_hides_others_and_while_it_does() -> None:
    ball = make_track(0, "ball", [LEFT] * 3, TIMES, is_masked=[False, True, False])
    cup = make_track(1, "cup", [RIGHT, LEFT, LEFT], TIMES, is_occluder=True)
    other = make_track(2, "mug", [LEFT] * 3, TIMES)
    assert tokens(STATES, "occluder cup", ball, cup, other) == [3, 7, 8, 12, 16, 20]
    assert tokens(STATES, "occluding cup", ball, cup, other) == [8, 12]
    assert tokens(STATES, "occluding thing", ball, cup, other) == [8, 12]  # the mug is over it, but no occluder


@pytest.mark.parametrize("space", [PARTS, SIGHTS, STATES])
def test_every_name_that_labels_tokens_is_counted(space: Space) -> None:
    tracks: Sequence[Track] = (
        make_track(0, "red ball", [LEFT] * 3, TIMES, is_masked=[False, True, True]),
        make_track(1, "cup", [LEFT, [0.7, 0.0, 0.93, 0.9]], TIMES[1:]),
    )
    video = make_video(tracks)
    counted = tuple(sorted(names_of(video)[space]))
    found = label_video(video, make_grid(TIMES), {space: counted})[space]
    named = {counted[label] for label in found.positive[:, 1]}
    assert named <= set(counted)
    assert any("ball" in name for name in named)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hidden thing", True),
        ("clapping begins", True),
        ("since clapping", True),
        ("clapping", False),
        ("hidden ball", False),
        ("centre of actor of lift", True),
        ("hand in lift", False),
    ],
)
def test_names_that_stand_back(name: str, expected: bool) -> None:
    assert is_derived(name) == expected
