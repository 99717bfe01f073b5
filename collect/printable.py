"""Text from outside, made safe to show: on a terminal, in a message, in a picture, in a file name.

Labels, ids, paths and a server's answers can be anything. Control characters move the cursor and recolour
the terminal, newlines break a message in two, bidirectional overrides show text in another order than it is stored in,
and undecodable bytes of a file name (lone surrogates in Python) cannot be written at all.
"""

import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories that are escaped: controls, formats, surrogates, private use, line and paragraph separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that are part of words in some scripts, and of composed emoji."""


def printable(text: object, most: int = 200) -> str:
    r"""Return text with invisible characters escaped, such as `\n` or `\x1b`, and cut it if it is long.

    Args:
        text: what to show; anything but a string is shown by its `str`.
        most: characters to keep.
    """
    shown = str(text)
    if len(shown) > most:
        shown = f"{shown[: most - 1]}…"
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_escaped(character) for character in shown)


class Lines(str):
    """Text of several lines that this program has laid out, such as a table: its own line breaks are not escaped."""

    __slots__ = ()


def printable_lines(text: str) -> str:
    """Return text with invisible characters escaped, except its line breaks; nothing is cut."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
