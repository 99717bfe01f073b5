from collections.abc import Callable

import pytest

from collect.artefact.json_fields import Fields
from collect.errors import UserError

CONTENT = {
    "n": 3,
    "x": 1.5,
    "yes": 1,
    "word": "cup",
    "words": ["a"],
    "ints": [1, 2],
    "boxes": [[0, 0, 1, 1]],
    "no": None,
}


@pytest.fixture
def fields() -> Fields:
    return Fields(CONTENT, "a.json: video 'v'")


def test_right_fields_are_read(fields: Fields) -> None:
    assert fields.integer("n") == 3
    assert fields.positive("x") == 1.5
    assert fields.flag("yes") is True
    assert fields.text("word") == "cup"
    assert fields.texts("words") == ["a"]
    assert fields.integers("ints", n=2) == [1, 2]
    assert fields.numbers("ints") == [1.0, 2.0]
    assert fields.rows("boxes", width=4) == [[0.0, 0.0, 1.0, 1.0]]
    assert fields.has("n")
    assert not fields.has("no")
    assert list(fields.children("no")) == list(fields.children("absent")) == []


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda f: f.integer("x"), "`x` = 1.5, which should be a whole number"),
        (lambda f: f.integer("absent"), "lacks the field `absent`"),
        (lambda f: f.positive("word"), "`word` = 'cup', which should be a number above 0"),
        (lambda f: f.flag("n"), "`n` = 3, which should be true or false"),
        (lambda f: f.text("n"), "`n` = 3, which should be text"),
        (lambda f: f.texts("ints"), "should be a list of texts"),
        (lambda f: f.integers("ints", n=3), "should be a list of 3 whole numbers"),
        (lambda f: f.rows("boxes", width=2), r"`boxes\[0\]` = \[0, 0, 1, 1\], which should be a list of 2 numbers"),
        (lambda f: f.child("words"), "`words` is not a JSON object"),
        (lambda f: list(f.children("ints")), r"`ints`\[0\] is not a JSON object"),
        (lambda f: list(f.children("word")), "should be a list of objects"),
    ],
)
def test_wrong_fields_are_named_with_their_place(
    fields: Fields, read: Callable[[Fields], object], expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as info:
        read(fields)
    assert str(info.value).startswith("a.json: video 'v'")


def test_not_a_number_is_not_a_number() -> None:
    with pytest.raises(UserError, match="a list of numbers"):
        Fields({"t": [float("nan")]}, "a.json").numbers("t")


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(UserError) as info:
        Fields({"t": ["x" * 500]}, "a.json").text("t")
    assert len(str(info.value)) < 200
