"""Reading JSON objects written by others, so that whatever is wrong with one is told by file, place and field."""

from collections.abc import Iterator, Sequence
from math import isfinite
from typing import Any, cast

from collect.errors import UserError


class Fields:
    """The fields of one JSON object; every getter raises a `UserError` that names the object and the field.

    Args:
        content: what the JSON file holds at this place.
        place: where that is, such as `all_valid.json: video 'video_7'`.
        remedy: what the user can do, as the end of a sentence.
    """

    def __init__(self, content: object, place: str, remedy: str = "mend the file or fetch it again") -> None:
        if not isinstance(content, dict):
            raise UserError(f"{place} is not a JSON object: {remedy}.")
        self._content = cast("dict[str, Any]", content)
        self._place = place
        self._remedy = remedy

    def error(self, name: str, expected: str) -> UserError:
        """The error for a field that is not what it should be."""
        if name not in self._content:
            return UserError(f"{self._place} lacks the field `{name}`: {self._remedy}.")
        shown = repr(self._content[name])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UserError(f"{self._place} has the field `{name}` = {shown}, which should be {expected}: {self._remedy}.")

    def names(self) -> list[str]:
        """Names of the fields."""
        return list(self._content)

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._content.get(name) is not None

    def text(self, name: str) -> str:
        """A string."""
        value = self._content.get(name)
        if not isinstance(value, str):
            raise self.error(name, "text")
        return value

    def integer(self, name: str, *, or_text: bool = False) -> int:
        """A whole number; with `or_text` also its decimal digits."""
        value = self._content.get(name)
        if or_text and isinstance(value, str) and value.isdecimal():
            return int(value)
        if not _is_integer(value):
            raise self.error(name, "a whole number")
        return int(cast("int", value))

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._content.get(name)
        if not _is_number(value):
            raise self.error(name, "a number")
        return float(cast("float", value))

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self._content.get(name)
        if not _is_number(value) or cast("float", value) <= 0:
            raise self.error(name, "a number above 0")
        return float(cast("float", value))

    def flag(self, name: str, *, absent: bool | None = None) -> bool:
        """A truth value, also written 0 or 1; `absent`, unless None, is that of a missing field, of null and of -1."""
        value = self._content.get(name)
        if absent is not None and value in (None, -1):
            return absent
        if value not in (0, 1):  # True and False are equal to 1 and 0
            raise self.error(name, "true or false")
        return bool(value)

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        value = self._content.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
            raise self.error(name, "a list of texts")
        return cast("list[str]", value)

    def integers(self, name: str, *, n: int | None = None) -> list[int]:
        """A list of (exactly `n`) whole numbers."""
        value = self._list(name, n, "whole numbers")
        if not all(_is_integer(item) for item in value):
            raise self.error(name, "a list of whole numbers")
        return [int(item) for item in value]

    def numbers(self, name: str, *, n: int | None = None) -> list[float]:
        """A list of (exactly `n`) finite numbers."""
        value = self._list(name, n, "numbers")
        if not all(_is_number(item) for item in value):
            raise self.error(name, "a list of numbers")
        return [float(item) for item in value]

    def rows(self, name: str, *, n: int, width: int) -> list[list[float]]:
        """Exactly `n` lists of `width` finite numbers each."""
        value = self._list(name, n, f"lists of {width} numbers")
        for row in value:
            if not isinstance(row, list) or len(cast("list[object]", row)) != width or not all(map(_is_number, row)):
                raise self.error(name, f"lists of {width} numbers")
        return [[float(item) for item in row] for row in value]

    def equals(self, other: "Fields") -> bool:
        """Whether another object has the same content."""
        return self._content == other._content

    def conflict(self, other: "Fields") -> UserError:
        """The error for two objects that should be the same."""
        return UserError(f"{self._place} and {other._place} have one id and differ: remove one of the files.")

    def child(self, name: str) -> "Fields":
        """The object in a field."""
        if name not in self._content:
            raise self.error(name, "an object")
        return Fields(self._content[name], f"{self._place}, `{name}`", self._remedy)

    def children(self, name: str) -> Iterator["Fields"]:
        """The objects in a list; none where the field is absent, null, false or empty."""
        value = self._content.get(name) or []
        if not isinstance(value, list):
            raise self.error(name, "a list of objects")
        for i, item in enumerate(cast("list[object]", value)):
            yield Fields(item, f"{self._place}, `{name}`[{i}]", self._remedy)

    def _list(self, name: str, n: int | None, of_what: str) -> Sequence[Any]:
        value = self._content.get(name)
        if not isinstance(value, list) or (n is not None and len(cast("list[object]", value)) != n):
            raise self.error(name, f"a list of {of_what}" if n is None else f"a list of {n} {of_what}")
        return cast("list[Any]", value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False
