from __future__ import annotations

import itertools

import numpy as np
import pytest

from features.combinations.formulas import Formula, Operation, Term

COLUMNS = np.array(list(itertools.product([False, True], repeat=3))).T
"""Three labels on eight tokens, one for each case."""
A, B, C = Term(0), Term(1), Term(2)


def name(label: int) -> str:
    return "abc"[label]


def tokens(formula: Formula) -> list[bool]:
    return formula.holds(lambda label: COLUMNS[label]).tolist()


@pytest.mark.parametrize(
    ("operations", "terms", "text"),
    [
        (("AND",), (A, B), "a AND b"),
        (("OR",), (A, Term(1, True)), "a OR NOT b"),
        (("AND", "AND"), (A, B, C), "a AND b AND c"),
        (("AND", "OR"), (A, B, Term(2, True)), "(a AND b) OR NOT c"),
        (("OR", "AND"), (Term(0, True), B, C), "(NOT a OR b) AND c"),
    ],
)
def test_a_formula_holds_where_its_text_says_so(
    operations: tuple[Operation, ...], terms: tuple[Term, ...], text: str
) -> None:
    formula = Formula(terms, operations)
    assert formula.text(name) == text
    python = text.lower()
    assert tokens(formula) == [
        eval(python, {}, dict(zip("abc", case, strict=True))) for case in itertools.product([False, True], repeat=3)
    ]


def test_parts_are_all_that_is_left_where_terms_are_dropped() -> None:
    formula = Formula((A, B, Term(2, True)), ("OR", "AND"))
    parts = [part.text(name) for part in formula.parts()]
    assert sorted(parts) == sorted(["b AND NOT c", "a AND NOT c", "a OR b", "a", "b", "NOT c"])
    assert len(parts) == len(set(parts))
    assert Formula((A,)).parts() == []


def test_an_operation_stands_between_two_terms() -> None:
    with pytest.raises(AssertionError, match="between two terms"):
        Formula((A, B), ())
