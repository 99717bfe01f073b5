"""Reading JSON objects written by others; errors name the file, the place and the field."""

import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np

from collect.errors import UserError

_DIGITS = re.compile(r"[+-]?[0-9]{1,15}")
_LARGEST = 1e300


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

    @property
    def place(self) -> str:
        """Where the object is."""
        return self._place

    def error(self, name: str, expected: str) -> UserError:
        """The error for a field that is not what it should be."""
        if name not in self._content:
            return UserError(f"{self._place} lacks the field `{name}`: {self._remedy}.")
        shown = reprlib.repr(self._content[name])  # bounded in depth and length
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return UserError(f"{self._place} has the field `{name}` = {shown}, which should be {expected}: {self._remedy}.")

    def names(self) -> list[str]:
        """Names of the fields."""
        return list(self._content)

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._content.get(name) is not None

    def is_said(self, name: str) -> bool:
        """Whether a field is there and neither null nor -1, which the benchmark writes where it does not apply."""
        return self._content.get(name) not in (None, -1)

    def value(self, name: str) -> object:
        """Whatever a field holds; None if it is missing."""
        return self._content.get(name)

    def text(self, name: str) -> str:
        """A string."""
        value = self._content.get(name)
        if not isinstance(value, str):
            raise self.error(name, "text")
        return value

    def integer(self, name: str, *, or_text: bool = False) -> int:
        """A whole number; with `or_text` also its decimal digits."""
        value = self._content.get(name)
        if or_text and isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            return int(value)
        if not _is_integer(value):
            raise self.error(name, "a whole number")
        return int(cast("int", value))

    def count(self, name: str, *, least: int = 0, most: int = 2**62) -> int:
        """A whole number within bounds."""
        value = self._content.get(name)
        if not _is_integer(value) or not least <= cast("int", value) <= most:
            raise self.error(name, f"a whole number from {least} to {most}")
        return int(cast("int", value))

    def array(self, name: str, *, dtype: type[np.float64] | type[np.int64], width: int | None = None) -> np.ndarray:
        """A list of finite numbers, or with `width` of lists of that many; fast for long ones too."""
        wanted = "whole numbers" if dtype is np.int64 else "finite numbers"
        expected = f"a list of {wanted}" if width is None else f"a list of lists of {width} {wanted}"
        value = self._content.get(name)
        try:
            found = np.array(value) if isinstance(value, list) else None
        except (ValueError, RecursionError):  # lists of several lengths
            found = None
        kinds = "iu" if dtype is np.int64 else "iuf"
        if (
            found is None
            or (found.size and found.dtype.kind not in kinds)
            or (found.size and found.shape != (len(found), *((width,) if width is not None else ())))
            or not np.isfinite(found.astype(np.float64)).all()
        ):
            raise self.error(name, expected)
        return found.astype(dtype).reshape((-1,) if width is None else (-1, width))

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
        """A truth value, also written 0 or 1; `absent`, unless None, is the value for a missing field, null and -1."""
        value = self._content.get(name)
        if absent is not None and value in (None, -1):
            return absent
        if not _is_flag(value):
            raise self.error(name, "true or false")
        return bool(value)

    def flags(self, name: str, *, n: int) -> list[bool]:
        """Exactly `n` truth values as `flag` reads them, or one for all of them; false if null, -1 or missing."""
        value = self._content.get(name)
        if not isinstance(value, list):
            return [self.flag(name, absent=False)] * n
        items = cast("list[object]", value)
        if len(items) != n or not all(_is_flag(item) or item in (None, -1) for item in items):
            raise self.error(name, f"true or false, or a list of {n} of them")
        return [item not in (None, -1) and bool(item) for item in items]

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """One of some words."""
        value = self._content.get(name)
        if not isinstance(value, str) or value not in choices:
            raise self.error(name, f"one of {', '.join(choices)}")
        return value

    def texts(self, name: str, *, or_one: bool = False, numbers: bool = False) -> list[str]:
        """A list of strings; with `or_one` also one alone, with `numbers` also whole numbers, as their digits."""
        value = self._content.get(name)
        if or_one and isinstance(value, str):
            return [value]
        items = cast("list[object]", value) if isinstance(value, list) else [None]
        if not all(isinstance(item, str) or (numbers and _is_integer(item)) for item in items):
            raise self.error(name, "a list of texts")
        return [item if isinstance(item, str) else str(int(cast("int", item))) for item in items]

    def integers(self, name: str, *, n: int | None = None, or_one: bool = False) -> list[int]:
        """A list of (exactly `n`) whole numbers; with `or_one` also one alone."""
        if or_one and _is_integer(self._content.get(name)):
            return [self.integer(name)]
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

    def rows(self, name: str, *, width: int) -> list[list[float]]:
        """A list of lists of `width` finite numbers each."""
        value = self._list(name, None, f"lists of {width} numbers")
        for i, row in enumerate(value):
            if not isinstance(row, list) or len(cast("list[object]", row)) != width or not all(map(_is_number, row)):
                raise Fields({f"{name}[{i}]": row}, self._place).error(f"{name}[{i}]", f"a list of {width} numbers")
        return [[float(item) for item in row] for row in value]

    def equals(self, other: "Fields") -> bool:
        """Whether another object has the same content."""
        return self._content == other._content

    def conflict(self, other: "Fields") -> UserError:
        """The error for two objects that should be the same."""
        return UserError(f"{self._place} and {other._place} have one id and differ: remove one of the files.")

    def items(self, name: str) -> list[Any]:
        """A list of anything."""
        return list(self._list(name, None, "values"))

    def mapping(self, name: str) -> dict[str, Any]:
        """An object whose fields have names that are not known beforehand."""
        value = self._content.get(name)
        if not isinstance(value, dict):
            raise self.error(name, "an object")
        return cast("dict[str, Any]", value)

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
    """Whether a value is a whole number that fits in 64 bits, including one written as 30.0."""
    return _is_number(value) and abs(cast("float", value)) < 2**53 and value == int(cast("float", value))


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) < _LARGEST  # false for NaN; and an int with more digits than a float holds is not a measurement


def _is_flag(value: object) -> bool:
    return value in (0, 1)  # True and False are equal to 1 and 0
