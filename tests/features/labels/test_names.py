from __future__ import annotations

import pytest

from features.labels.names import head_noun, is_whole, normalise_name, object_names


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Red Box", "red box"),
        ("  the  red_box. ", "red box"),
        ("cup 2", "cup"),
        ("letter-x", "letter-x"),
        ("Putting something into something", "putting something into something"),
        ("the", "the"),
        ("12", "12"),
        ("?!", ""),
    ],
)
def test_normalise_name(label: str, name: str) -> None:
    assert normalise_name(label) == name


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("red box", ("red box", "box", "red")),
        ("Red plastic cups", ("red plastic cup", "cup", "red", "plastic")),
        ("cup", ("cup",)),
        ("boxes", ("box",)),
        ("berries", ("berry",)),
        ("glass", ("glass",)),
        ("scissors", ("scissors",)),
        ("small cup of tea", ("small cup of tea", "cup", "small")),
        ("letter-x", ("letter-x", "letter")),
        ("", ()),
    ],
)
def test_object_names_are_whole_name_head_and_attributes(label: str, names: tuple[str, ...]) -> None:
    assert object_names(label) == names


def test_what_names_nothing_has_no_head_and_makes_no_whole_name() -> None:
    assert (head_noun("—"), object_names("?!")) == ("", ())
    made = [f"moving {head_noun('—')}", f"{normalise_name('?!')} begins", f"hand in {normalise_name('…')}", ""]
    assert not any(is_whole(name) for name in made)
    assert is_whole("hand in كوب")
