"""What a counting question counts: its subject, read from its text and tags.

Questions about one subject are the ones that a latent which stands for it should move, and all other counting questions
are the ones that it should not. "How many times did the person launch objects on the table?" counts the action "launch
objects on table", "How many red toys appear in the video?" the object "red toy". Questions that count alike have one
subject, whatever the video; a text that this grammar does not know is its own subject. Pure functions of text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["object", "action", "event", "other"]

_AUXILIARIES = frozenset(
    (
        *("do", "does", "did", "is", "are", "was", "were", "be", "been", "being", "has", "have", "had"),
        *("can", "could", "will", "would"),
    )
)
_DOERS = frozenset({"person", "people", "someone", "somebody", "man", "woman", "child", "they", "he", "she", "you"})
_VERBS = frozenset({"appear", "appears", "appeared", "change", "changed", "remain", "remained", "fall", "fell", "roll"})
_PREPOSITIONS = frozenset({"in", "on", "of", "from", "at", "with", "inside", "outside", "under", "behind", "to", "by"})
_EMPTY = frozenset(
    (
        *("the", "a", "an", "this", "that", "there", "such", "multiple", "something", "anything", "it", "them"),
        *("see", "appear", "appears", "appeared", "visible"),
    )
)
"""Words that do not tell one subject from another."""
_TAILS = re.compile(r" (?:in|during|throughout|over) (?:the|this) (?:whole |entire )?video\b| in total\b")
_ASKED = re.compile(r"\bhow many (?P<times>times\b ?)?(?P<rest>.*)|\b(?:number of|count) (?:the )?(?P<counted>.+)")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a question counts."""

    name: str
    """What it is called in every table: the same for all questions that count alike."""
    kind: Kind
    """`other` where the text could not be read."""
    head: str
    """The noun of an object or of what an event happens to, in the singular; the verb of an action."""
    attributes: tuple[str, ...] = ()
    """All other words that tell it from other subjects, in their order."""


@functools.cache
def subject_of(question: str, tags: Sequence[str] = ()) -> Subject:
    """The subject of a counting question.

    Args:
        question: its text.
        tags: its tags, as a tuple; "action counting" and "event counting" decide what the text leaves open.
    """
    *before, asked = [part.strip() for part in re.split(r"[.?!]", _plain(question)) if part.strip()] or [""]
    found = _ASKED.search(asked)
    if found is None:
        whole = _plain(question).strip(" .?!")
        return Subject(name=whole, kind="other", head=whole)
    if found["times"]:
        subject = _happening(found["rest"].split(), tags)
    else:
        subject = _thing((found["rest"] or found["counted"]).split(), " ".join(before).split())
    return subject or Subject(name=asked, kind="other", head=asked)


def _plain(text: str) -> str:
    return _TAILS.sub("", " " + " ".join(re.sub(r"[^\w\s.?!'-]", " ", text.lower()).split())).strip()


def _happening(words: list[str], tags: Sequence[str]) -> Subject | None:
    """What "how many times" asks for: an action of a person, or an event that something has."""
    told = _telling(words)
    if not told:
        return None
    by_somebody = any(word in _DOERS for word in words[:3])
    kind = "event" if "event counting" in tags else "action" if "action counting" in tags or by_somebody else "event"
    return Subject(name=" ".join(told), kind=kind, head=told[0], attributes=tuple(told[1:]))


def _thing(words: list[str], context: list[str]) -> Subject | None:
    """A noun with what is said about it; "such objects" takes what an earlier sentence says about them."""
    end = next(
        (at for at, word in enumerate(words) if at and word in _AUXILIARIES | _VERBS | _PREPOSITIONS | _DOERS | _EMPTY),
        len(words),
    )
    if end == 0:
        return None
    *adjectives, noun = words[:end]
    rest = words[end:]
    if "such" in adjectives and noun in context:
        at = context.index(noun)
        adjectives = [*context[max(0, at - 1) : at], *adjectives]
        rest = context[at + 1 :]
    head = _singular(noun)
    before, after = _telling(adjectives), _telling(rest)
    if not head.isalpha() and "-" not in head:
        return None
    return Subject(name=" ".join([*before, head, *after]), kind="object", head=head, attributes=(*before, *after))


def _telling(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in _AUXILIARIES | _DOERS | _EMPTY]


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]
