"""The beam search: labels are joined one at a time, and the combinations that correlate most on train videos go on.

Every formula of the beam is joined with every label in four ways: AND, AND NOT, OR, OR NOT. All of them are scored from
two sums per label: how many tokens have both, and how much the latent is active there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from features.combinations.formulas import Formula, Operation, Term
from features.combinations.tokens import ActiveTokens, LabelledTokens

BEAM = 5
"""Formulas of each depth that are joined with further labels."""
TRIED = 20
"""Labels of each formula and way of joining whose results are compared with those of others."""
WAYS: tuple[tuple[Operation, bool], ...] = (("AND", False), ("AND", True), ("OR", False), ("OR", True))
"""Operation, and whether the label that comes in is negated."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A combination that the search chose."""

    formula: Formula
    correlation: float
    """On train videos."""
    n_tried: int
    """Formulas that were scored for the latent up to this depth, single labels included."""


def search(tokens: LabelledTokens, active: ActiveTokens, depth: int) -> list[Found]:
    """The best combination of each depth from 2 on; none of a depth at which every one is the same as a shorter one.

    Args:
        tokens: of the train videos.
        active: where the latent is active there.
        depth: most labels in a combination.
    """
    n_label = tokens.n_with_label()
    total, label_sums = active.sums_with(None)
    beam = _best_terms(active.correlation(n_label, label_sums))
    marks = [(int(n), float(s)) for n, s in zip(n_label, label_sums, strict=True)]
    seen = {_mark(n, s, total) for n, s in marks} | {_mark(tokens.n - n, total - s, total) for n, s in marks}
    n_tried, found = 2 * tokens.n_labels, list[Found]()
    for _ in range(1, depth):
        n_tried += len(WAYS) * len(beam) * tokens.n_labels
        scored = [each for formula in beam for each in _joined(formula, tokens, active, total, label_sums)]
        scored.sort(key=lambda each: (-each.correlation, each.formula.terms, each.formula.operations))
        beam = []
        for each in scored:
            if each.correlation > 0 and each.mark not in seen and len(beam) < BEAM:
                seen.add(each.mark)
                beam.append(each.formula)
                if len(beam) == 1:
                    found.append(Found(formula=each.formula, correlation=each.correlation, n_tried=n_tried))
    return found


class _Scored(NamedTuple):
    formula: Formula
    correlation: float
    mark: tuple[int, float]
    """Formulas with the same mark hold at the same tokens."""


def _joined(
    formula: Formula,
    tokens: LabelledTokens,
    active: ActiveTokens,
    total: float,
    label_sums: Float64[np.ndarray, " label"],
) -> Iterator[_Scored]:
    """The best formulas that one more label makes of a formula.

    Where as many tokens have both as have one of the two, that one is all there is, and no formula is made.
    """
    n, n_with = tokens.counts_with(formula)
    s, s_with = active.sums_with(formula)
    for operation, negated in WAYS:
        n_other = tokens.n - tokens.n_with_label() if negated else tokens.n_with_label()
        s_other = total - label_sums if negated else label_sums
        n_both, s_both = (n - n_with, s - s_with) if negated else (n_with, s_with)
        is_and = operation == "AND"
        n_true, s_true = (n_both, s_both) if is_and else (n + n_other - n_both, s + s_other - s_both)
        is_new = (n_both < n) & (n_both < n_other) & (n_true > 0) & (n_true < tokens.n)
        correlation = np.where(is_new, active.correlation(n_true, s_true), -np.inf)
        for label in _most(correlation, TRIED):
            if correlation[label] > 0 and label not in {term.label for term in formula.terms}:
                yield _Scored(
                    formula=formula.joined(operation, Term(label, negated)),
                    correlation=float(correlation[label]),
                    mark=_mark(int(n_true[label]), float(s_true[label]), total),
                )


def _mark(n_true: int, sum_true: float, total: float) -> tuple[int, float]:
    return n_true, round(sum_true / total, 9)


def _best_terms(correlation: Float64[np.ndarray, " label"]) -> list[Formula]:
    """Single labels and their absences, those that correlate most."""
    both = np.concatenate([correlation, -correlation])
    return [
        Formula((Term(place % len(correlation), place >= len(correlation)),))
        for place in _most(both, BEAM)
        if both[place] > 0
    ]


def _most(values: Float64[np.ndarray, " item"], n: int) -> list[int]:
    return np.argsort(-values, kind="stable")[:n].tolist()
