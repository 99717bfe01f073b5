"""Counting questions: the tags that make one, and the numbers that options name.

An option names a number if its words allow no other: `3`, `three`, `3 cups`, `twice`, `none`. A bound names the nearest
number within it: 4 for `4 or more`, `at least 4` and `more than 3`, 1 for `less than 2`. Ranges (`2-3`), estimates and
fractions of a thing name none.
"""

import re

COUNTING_TAGS = ("object counting", "action counting", "event counting")
"""Perception Test's own."""

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {
    **{word: number for number, word in enumerate(_SMALL)},
    **{ten: 10 * number for number, ten in enumerate(_TENS, start=2)},
    **{f"{ten}-{_SMALL[unit]}": 10 * n + unit for n, ten in enumerate(_TENS, start=2) for unit in range(1, 10)},
    **dict.fromkeys(("hundred", "a hundred", "one hundred"), 100),
    **dict.fromkeys(("dozen", "a dozen"), 12),
    **dict.fromkeys(("none", "never", "nothing", "nobody"), 0),
    **dict(zip(("once", "twice", "thrice"), (1, 2, 3), strict=True)),
}
_SPELT = "|".join(word.replace("-", "[ -]") for word in sorted(_WORDS, key=len, reverse=True))
_NUMBER = rf"(?P<number>[0-9]{{1,3}}(?:,[0-9]{{3}})+|[0-9]{{1,9}}|{_SPELT})"
_NOT_NOUNS = (
    *("or", "and", "to", "than", "minus", "plus", "point", "percent", "half", "halves", "third", "thirds", "quarter"),
    *("quarters", "dozen", "dozens", "hundred", "hundreds", "thousand", "thousands", "million", "millions"),
)
"""Words after a number that change it."""
_NAME = rf"(?!(?:{'|'.join(_NOT_NOUNS)})\b)[a-z]+"
_NOUN = rf"(?: (?P<noun>{_NAME}(?:[ -]{_NAME})?))?"
_PREFIXES: tuple[tuple[str, int], ...] = (
    (r"(?:exactly|only|just|precisely|a total of|no more and no less than) ", 0),
    (r"(?:at least|no less than|no fewer than|not less than|not fewer than|minimum|minimum of|a minimum of) ", 0),
    (r"(?:at most|no more than|not more than|up to|maximum|maximum of|a maximum of) ", 0),
    (r"(?:>=|≥|=>|<=|≤|=<|=) ?", 0),
    (r"(?:less than|fewer than|lower than|smaller than|under|below|<) ?", -1),
    (r"(?:more than|greater than|higher than|larger than|over|above|>) ?", 1),
)
_SUFFIX = (
    r"(?: ?\+| (?:or|and|times or|time or) (?:more|less|fewer|above|over|below|under|greater|higher|up)"
    r"(?: (?:times|of them|objects))?| (?:at least|at most|only|exactly|in total|altogether|minimum|maximum))?"
)
_PATTERNS = tuple((re.compile(prefix + _NUMBER + _NOUN + _SUFFIX), step) for prefix, step in ((r"", 0), *_PREFIXES))
_NO_OF = re.compile(rf"(?:no|zero)(?: {_NAME}){{1,2}}")


def option_number(option: str) -> float | None:
    """Return the number that an option names, or None if it names none or several.

    Args:
        option: its text, such as `3`, `Three cups.`, `less than 2`, `4+`, `twice`.
    """
    text = " ".join(option.lower().replace("–", "-").strip().strip(".!").split())
    if text == "not at all":
        return 0.0
    for pattern, step in _PATTERNS:
        match = pattern.fullmatch(text)
        if match is None:
            continue
        noun = match["noun"]
        if noun is not None and not _is_noun(noun):
            continue
        number = _number(match["number"]) + step
        return float(number) if number >= 0 else None
    return 0.0 if _NO_OF.fullmatch(text) and _is_noun(text.partition(" ")[2]) else None


def _number(text: str) -> int:
    if text[0].isdigit():
        return int(text.replace(",", ""))
    return _WORDS[text] if text in _WORDS else _WORDS[text.replace(" ", "-")]


def _is_noun(text: str) -> bool:
    words = re.split("[ -]", text)
    return not any(word in _WORDS for word in words)
