"""Seals: any changed bit is found, and what carries none is told apart."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collect.artefact.seal import BLANK, CHECKSUM, condition, object_condition, seal, seal_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40), st.data())
def test_a_flipped_bit_anywhere_in_a_sealed_file_is_found(before: bytes, after: bytes, data: st.DataObject) -> None:
    whole = seal(before + BLANK + after)
    assert condition(whole) == "whole"
    place = data.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place // 8] ^= 1 << place % 8
    assert condition(bytes(damaged)) != "whole"


def test_text_that_looks_like_a_seal_does_not_take_its_place() -> None:
    # Labels in a table come before its seal.
    assert condition(seal(b"label " + BLANK + b" end " + BLANK + b" footer")) == "whole"


@pytest.mark.parametrize("data", [b"", b"anything", BLANK[:-1], b"video-sae sha256 " + b"x" * 64])
def test_a_file_without_a_seal_is_told_apart(data: bytes) -> None:
    assert condition(data) == "unsealed"


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_keeps_its_seal_through_a_file(content: dict[str, object]) -> None:
    back = json.loads(json.dumps(seal_object(content), indent=2))
    assert object_condition(back) == "whole"
    assert object_condition({name: value for name, value in back.items() if name != CHECKSUM}) == "unsealed"


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON, min_size=1, max_size=4), st.data())
def test_another_value_breaks_the_seal_of_an_object(content: dict[str, object], data: st.DataObject) -> None:
    sealed = seal_object(content)
    name = data.draw(st.sampled_from(sorted(set(sealed) - {CHECKSUM}) or [CHECKSUM]))
    sealed[name] = {"another": sealed[name]}
    assert object_condition(sealed) == "changed"


def test_an_object_nested_too_deep_to_be_written_is_changed() -> None:
    deep: object = 1
    for _ in range(20_000):
        deep = [deep]
    assert object_condition({"a": deep, CHECKSUM: "0"}) == "changed"
