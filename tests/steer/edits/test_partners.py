"""Partners of swaps: the same question, another count that the options hold, in turns."""

import dataclasses

from steer.edits.partners import partners, true_count
from tests.steer.toy import counting_item, noncounting_item

SHAPE = (4, 1, 1)


def items(*counts: int, options: tuple[str, ...] = ("1", "2", "3")) -> list:
    return [
        counting_item(f"v{place}", options=options, answer_id=options.index(str(count)))
        for place, count in enumerate(counts)
    ]


def paired(own: list, **kwargs: bool) -> dict[str, str]:
    shapes = {item.video_id: SHAPE for item in own}
    return {item: other.video_id for item, other in partners(own, shapes, **kwargs).items()}


def test_partners_have_another_count_and_take_turns() -> None:
    own = items(1, 2, 2, 3)
    assert [true_count(item) for item in own] == [1.0, 2.0, 2.0, 3.0]
    assert paired(own) == {"v0/0": "v1", "v1/0": "v3", "v2/0": "v3", "v3/0": "v0"}
    assert paired(own, same_count=True) == {"v1/0": "v2", "v2/0": "v1"}


def test_only_what_corresponds_is_paired() -> None:
    own = items(1, 2)
    assert partners(own, {"v0": SHAPE, "v1": (4, 2, 2)}) == {}
    other = dataclasses.replace(own[1], question="How many others?")
    assert paired([own[0], other]) == {}
    assert paired([own[0], dataclasses.replace(own[1], held_out=False)]) == {}
    assert paired([own[0], noncounting_item("v1")]) == {}


def test_the_partners_count_must_be_an_option() -> None:
    own = [*items(1), counting_item("v9", options=("3", "4", "5"), answer_id=1)]
    assert paired(own) == {}
