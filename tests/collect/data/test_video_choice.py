from dataclasses import dataclass
from pathlib import Path

import pytest

from collect.data.video_choice import VideoChoice
from collect.errors import UserError


@dataclass
class Item:
    video_id: str


ITEMS = [Item(f"v{i}") for i in range(20)]


def test_words_in_any_order() -> None:
    assert VideoChoice.parse(None) == VideoChoice()
    assert VideoChoice.parse("valid") == VideoChoice(split="valid")
    assert VideoChoice.parse("100,ids.txt,valid") == VideoChoice(split="valid", ids=Path("ids.txt"), limit=100)


@pytest.mark.parametrize("text", ["0", "1,2", "a,b", "", "valid,", "my split"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--select must be"):
        VideoChoice.parse(text)


def test_a_limit_does_not_depend_on_what_else_is_there() -> None:
    few = {item.video_id for item in VideoChoice(limit=5).choose(ITEMS)}
    assert few == {item.video_id for item in VideoChoice(limit=5).choose(ITEMS[::-1])}
    assert few < {item.video_id for item in VideoChoice(limit=6).choose(ITEMS)}
