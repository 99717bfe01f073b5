"""The cache keeps what fits and forgets the least recently used."""

from ask.byte_cache import ByteCache


def test_values_are_made_once_while_they_fit() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    shelf = ByteCache(make, size=len, max_bytes=4)
    assert [shelf[name] for name in ("aa", "bb", "aa", "cc", "aa", "bb")] == ["aa", "bb", "aa", "cc", "aa", "bb"]
    # `cc` pushes `bb` out, because `aa` was used since.
    assert made == ["aa", "bb", "cc", "bb"]


def test_a_value_larger_than_the_bound_is_returned_and_not_kept() -> None:
    shelf = ByteCache(lambda name: name * 10, size=len, max_bytes=4)
    assert shelf["ab"] == "ab" * 10
    assert shelf["ab"] == "ab" * 10
    assert not shelf._values
