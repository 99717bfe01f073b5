"""Which annotated segments a subject counts, and which frames their events take."""

import dataclasses

import pytest

from steer.codes import Scene
from steer.mechanism.occurrences import EventLabel, annotated_events, event_label
from tests.steer.mechanism.toy_bench import EVENT, GRID, segment, video_of
from tests.steer.toy import counting_item

ITEMS = [counting_item(f"v{count}", answer_id=count - 1) for count in (1, 2, 3)]


def videos(label: str = EVENT, silent: str = "") -> dict:
    return {
        f"v{count}": video_of(
            f"v{count}",
            actions=[segment(0, label="moving")] * 2,
            sounds=[] if f"v{count}" == silent else [segment(at, label=label) for at in range(count)],
        )
        for count in (1, 2, 3)
    }


def test_the_label_is_the_one_whose_number_is_the_answer() -> None:
    found = event_label(ITEMS, videos().__getitem__)
    assert found == EventLabel(kind="sound", label=EVENT, agreement=1.0)


def test_no_label_is_better_than_one_that_disagrees_or_is_hardly_seen() -> None:
    assert event_label(ITEMS[:2], videos().__getitem__) is None  # two questions are too few
    # A silent video says nothing about sounds, which leaves two.
    assert event_label(ITEMS, videos(silent="v2").__getitem__) is None
    assert event_label([counting_item(f"v{n}", answer_id=0) for n in (1, 2, 3)], videos().__getitem__) is None


def test_actions_win_over_sounds_that_are_not_always_there() -> None:
    found = {
        name: video_of(name, actions=[segment(at) for at in range(len(each.sounds) or 2)], sounds=each.sounds)
        for name, each in videos(silent="v2").items()
    }
    assert event_label(ITEMS, found.__getitem__) == EventLabel(kind="action", label=EVENT, agreement=1.0)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([segment(2), segment(0)], [[0], [2]]),
        ([segment(0, 1), segment(3)], [[0, 1], [3]]),
        ([segment(0, 1), segment(1, 2)], []),  # they share a frame
        ([], []),
    ],
)
def test_events_are_frames_that_no_other_event_shares(segments: list, expected: list) -> None:
    scene = Scene(video=video_of("v", actions=segments), grid=GRID)
    label = EventLabel(kind="action", label=EVENT, agreement=1.0)
    found = annotated_events(label, scene)
    assert found is not None
    assert [[at for at, on in enumerate(each) if on] for each in found] == expected


def test_what_begins_after_the_cut_does_not_count() -> None:
    label = EventLabel(kind="action", label=EVENT, agreement=1.0)
    video = video_of("v", actions=[segment(0), segment(3)])
    assert len(label.segments(video) or []) == 2
    assert len(label.segments(dataclasses.replace(video, cut_frame=2)) or []) == 1


def test_a_silent_video_has_unknown_sounds() -> None:
    label = EventLabel(kind="sound", label=EVENT, agreement=1.0)
    assert annotated_events(label, Scene(video=video_of("v"), grid=GRID)) is None
