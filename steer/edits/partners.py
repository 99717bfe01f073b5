"""Which other video a swap takes its codes from: one of the same question whose answer is another count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ask.questions import Item


def true_count(item: Item) -> float:
    """The number that the right answer of a counting question names."""
    assert item.values is not None, f"{item.item_id} is no counting question"
    return item.values[item.answer_id]


def partners(
    items: Sequence[Item], shapes: Mapping[str, tuple[int, int, int]], *, same_count: bool = False
) -> dict[str, Item]:
    """For each counting item, an item of another video with the same question and another count.

    Only videos of one split are paired, and of one shape of the token grid, so that tokens correspond by time step and
    patch. The partner's count is among the item's options, so that the answer can move there. Partners take turns:
    number n of the items of one question takes the first that fits from number n + 1 on, so that no video serves all
    others.

    Args:
        items: of any videos and questions.
        shapes: shape of each video's token grid.
        same_count: pair equal counts instead; what such a swap moves is not the count.

    Returns:
        Item id -> the partner; items without a partner are left out.
    """
    groups: dict[tuple[str, bool], list[Item]] = {}
    for item in sorted((item for item in items if item.counting), key=lambda item: item.item_id):
        groups.setdefault((item.question, item.held_out), []).append(item)
    found: dict[str, Item] = {}
    for group in groups.values():
        for place, item in enumerate(group):
            for other in (*group[place + 1 :], *group[:place]):
                fits = other.video_id != item.video_id and shapes[other.video_id] == shapes[item.video_id]
                fits = fits and item.values is not None and true_count(other) in item.values
                if fits and (true_count(other) == true_count(item)) == same_count:
                    found[item.item_id] = other
                    break
    return found
