from dataclasses import dataclass
from pathlib import Path

import pytest

from collect.data.selection import Selection
from collect.errors import UserError


@dataclass
class Item:
    video_id: str


ITEMS = [Item(f"v{i}") for i in range(20)]


def test_words_in_any_order() -> None:
    assert Selection.parse(None) == Selection()
    assert Selection.parse("valid") == Selection(split="valid")
    assert Selection.parse("100,ids.txt,valid") == Selection(split="valid", ids=Path("ids.txt"), limit=100)


@pytest.mark.parametrize("text", ["0", "1,2", "a,b", "", "valid,", "my split"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--select must be"):
        Selection.parse(text)


def test_a_limit_does_not_depend_on_what_else_is_there() -> None:
    few = {item.video_id for item in Selection(limit=5).choose(ITEMS)}
    assert few == {item.video_id for item in Selection(limit=5).choose(ITEMS[::-1])}
    assert few < {item.video_id for item in Selection(limit=6).choose(ITEMS)}
