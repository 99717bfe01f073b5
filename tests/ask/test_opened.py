"""Which items are evaluated; that the inputs belong together is tested with the whole stage in test_run."""

from ask.opened import Wanted, drawn
from collect.data.counting import COUNTING_TAGS
from tests.steer.toy import counting_item, noncounting_item

ITEMS = [
    *(counting_item(f"v{n}", held_out=n >= 4) for n in range(8)),
    *(noncounting_item(f"v{n}", held_out=n >= 4) for n in range(8)),
    noncounting_item("without", held_out=True),  # a video that has no counting question
]


def wanted(items: int, noncounting_items: int) -> Wanted:
    return Wanted(tasks=COUNTING_TAGS, items=items, noncounting_items=noncounting_items, seed=0, data=None)


def test_train_and_held_out_videos_are_bounded_apart() -> None:
    kept = drawn(ITEMS, wanted(items=3, noncounting_items=2))
    assert [sum(item.held_out == split and item.counting for item in kept) for split in (False, True)] == [3, 3]
    assert [sum(item.held_out == split and not item.counting for item in kept) for split in (False, True)] == [2, 2]


def test_noncounting_questions_are_asked_about_videos_that_are_run_anyway() -> None:
    kept = drawn(ITEMS, wanted(items=3, noncounting_items=3))
    counted = {item.video_id for item in kept if item.counting}
    assert {item.video_id for item in kept if not item.counting} == counted


def test_other_videos_fill_up_what_these_cannot_give() -> None:
    kept = drawn(ITEMS, wanted(items=4, noncounting_items=5))
    held_out = {item.video_id for item in kept if item.held_out and not item.counting}
    assert held_out == {"v4", "v5", "v6", "v7", "without"}


def test_everything_is_evaluated_in_its_order_when_there_is_room() -> None:
    assert drawn(ITEMS, wanted(items=300, noncounting_items=300)) == tuple(ITEMS)
