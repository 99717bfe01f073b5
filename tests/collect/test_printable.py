import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.printable import printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("red cup", "red cup"),
        ("Tasse, die rote: größer", "Tasse, die rote: größer"),
        ("كوب أحمر", "كوب أحمر"),
        ("two\nlines", "two\\nlines"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnirts", "\\u202egnirts"),
        ("caf\udce9.mp4", "caf\\udce9.mp4"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        (7, "7"),
    ],
)
def test_only_what_is_not_seen_as_itself_is_escaped(text: object, shown: str):
    assert printable(text) == shown


def test_long_text_is_cut():
    assert printable("x" * 300, 10) == "x" * 9 + "…"


@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_anything_can_be_written_on_one_line(text: str):
    shown = printable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown


def test_lines_stay_lines():
    assert printable_lines("one\x1b\n\ttwo\r\n" + "x" * 999) == "one\\x1b\n\\ttwo\\r\n" + "x" * 999
