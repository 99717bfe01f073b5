"""What a combination of labels is: which tokens have it, how it is written, and what its parts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool

Operation = Literal["AND", "OR"]


class Term(NamedTuple):
    """A label or, negated, its absence."""

    label: int
    negated: bool = False


@dataclass(frozen=True)
class Formula:
    """Terms joined from left to right: (first OPERATION second) OPERATION third."""

    terms: tuple[Term, ...]
    operations: tuple[Operation, ...] = ()
    """Between the terms."""

    def __post_init__(self) -> None:
        """Check that operations stand between terms."""
        assert len(self.terms) == len(self.operations) + 1, "an operation stands between two terms"

    @property
    def depth(self) -> int:
        """Number of labels."""
        return len(self.terms)

    def joined(self, operation: Operation, term: Term) -> Formula:
        """This formula with one more term."""
        return Formula((*self.terms, term), (*self.operations, operation))

    def holds(self, column: Callable[[int], Bool[np.ndarray, " token"]]) -> Bool[np.ndarray, " token"]:
        """Where it is so.

        Args:
            column: the tokens that have a label.
        """
        values = [~column(term.label) if term.negated else column(term.label) for term in self.terms]
        found = values[0]
        for operation, value in zip(self.operations, values[1:], strict=True):
            found = found & value if operation == "AND" else found | value
        return found

    def parts(self) -> list[Formula]:
        """Everything that is left where one term or more are dropped: what a combination has to beat."""
        found: dict[Formula, None] = {}
        for place in range(self.depth if self.depth > 1 else 0):
            terms = (*self.terms[:place], *self.terms[place + 1 :])
            # The operation goes with the term that it brings in; without the first term, the second begins.
            gone = max(place - 1, 0)
            rest = Formula(terms, (*self.operations[:gone], *self.operations[gone + 1 :]))
            found |= dict.fromkeys((rest, *rest.parts()))
        return list(found)

    def text(self, name: Callable[[int], str]) -> str:
        """As people write it, with names of the labels in parentheses only where operations differ."""
        words = [("NOT " if term.negated else "") + name(term.label) for term in self.terms]
        text = words[0]
        for number, (operation, word) in enumerate(zip(self.operations, words[1:], strict=True)):
            if number and operation != self.operations[number - 1]:
                text = f"({text})"
            text = f"{text} {operation} {word}"
        return text
