from __future__ import annotations

import re
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from browse.names import BASELINE_SUFFIX, MOST_CHARACTERS, is_shard_name, part_of


def decoded(part: str) -> str:
    """The text of a part, by what the format says about it."""
    data = re.sub(r"~([0-9A-F]{2})|(.)", lambda match: chr(int(match[1], 16)) if match[1] else match[2], part)
    return data.encode("latin-1").decode("utf-8", "surrogatepass")


@given(st.text(min_size=1, max_size=40))
def test_a_part_holds_the_whole_text_and_needs_no_escaping(text: str) -> None:
    part = part_of(text)
    if len(part) <= MOST_CHARACTERS:
        assert decoded(part) == text
    assert is_shard_name(part)
    assert quote(part, safe="~") == part


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_texts_have_different_parts(one: str, other: str) -> None:
    assert (part_of(one) == part_of(other)) == (one == other)


def test_parts_stay_short_enough_for_file_systems() -> None:
    long = "ä" * 500
    assert len(part_of(long)) < 200
    assert part_of(long) != part_of(long + "b")


def test_some_parts_by_hand() -> None:
    assert part_of("class a/clip 7") == "class~20a~2Fclip~207"
    assert part_of("..") == "~2E."
    assert part_of("") == "~"
    assert part_of("a~b") == "a~7Eb"


def test_no_encoded_text_looks_like_a_baseline() -> None:
    assert part_of("sae~baseline") != "sae" + BASELINE_SUFFIX
    assert not part_of("sae~baseline").endswith(BASELINE_SUFFIX)


def test_names_that_lead_elsewhere_are_none() -> None:
    for name in ("", "/a", "a//b", "../a", "a/../b", "a/./b", ".a", "a/.b", "a\\b", "a b", "a\0", "é", "a/"):
        assert not is_shard_name(name), name
    for name in ("run", "S/latent/12", "S~baseline/video/a~20b.mp4"):
        assert is_shard_name(name), name
