"""Names of annotated objects, actions and sounds, made comparable across videos.

Perception Test has over 5,000 object names in free text ("red box", "the Cup", "cup 2", "letter-x"), so that a name has
to be reduced before enough videos share it. An object counts under its whole name, its head noun and each attribute.
"""

from __future__ import annotations

import functools
import re

_ARTICLES = frozenset({"a", "an", "the", "some"})
_PREPOSITIONS = frozenset({"of", "with", "for", "in", "on", "from", "and", "or", "to", "at", "under", "behind"})
_PLURAL_ONLY = frozenset({"glasses", "scissors", "pants", "jeans", "tongs", "tweezers", "pliers", "headphones"})


@functools.cache
def normalise_name(label: str) -> str:
    """Lower case, one space between words, no articles, no punctuation but inner hyphens, no trailing number."""
    words = re.findall(r"[^\W_]+(?:['-][^\W_]+)*", label.lower())
    words = [word for word in words if word not in _ARTICLES] or words
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(words)


@functools.cache
def object_names(label: str) -> tuple[str, ...]:
    """All names that an object goes by: the whole name first, then the head noun, then its attributes.

    "red plastic cups" gives "red plastic cup", "cup", "red" and "plastic"; "cup of tea" has the head "cup"; the letter
    tracks "letter-x" have the head "letter".
    """
    words = normalise_name(label).split()
    if not words:
        return ()
    end = next((i for i, word in enumerate(words) if word in _PREPOSITIONS and i > 0), len(words))
    head = _singular(words[end - 1])
    whole = " ".join([*words[: end - 1], head, *words[end:]])
    if head.startswith("letter-"):
        return (whole, "letter")
    return tuple(dict.fromkeys((whole, head, *words[: end - 1])))


@functools.cache
def head_noun(label: str) -> str:
    """The noun that says what an object is: "cup" of "red plastic cups"; empty where the label has no word."""
    whole, *others = object_names(label) or ("",)
    return others[0] if others else whole


def is_whole(name: str) -> bool:
    """Whether nothing is missing in a name that was put together: "moving " and "after " lack the word that counts."""
    return bool(name) and name == " ".join(name.split())


def _singular(word: str) -> str:
    if word in _PLURAL_ONLY or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1]
