"""Edits at any tokens: those of the text have other residuals in every question, visual ones the same in all.

An SAE that was trained on visual tokens has never seen a token of the text. What its encoder finds there is a reading
along its directions and no more: an edit at text tokens says what the model does with a direction, and nothing about
what the latent stands for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ask.cases import Case, edited_logits
from ask.packing import Asked, Sequences, letter_logits
from ask.questions import N_OPTIONS
from steer.edits.operations import Scope


def text_tokens(seq: Sequences, scope: Scope) -> Bool[Tensor, "row token"]:
    """The tokens of a scope in the text: all of every question, or the last one, which answers it."""
    assert scope.is_text, f"{scope} is not in the text"
    if scope.kind == "question":
        return seq.question >= 0
    found = torch.zeros_like(seq.question, dtype=torch.bool)
    found[seq.question_row, seq.last] = True
    return found


def placed_logits(
    model: Asked,
    case: Case,
    tokens: Bool[Tensor, "row token"] | None,
    changes: Iterable[Float[Tensor, "place d_model"]],
    batch_size: int,
) -> tuple[Float[Tensor, "edit item order letter"], Float[Tensor, "edit item order"]]:
    """Answer a case's items once per edit at some tokens.

    Args:
        model: the model, at the site where the case's residuals were read.
        case: the video and its questions.
        tokens: where the changes go, in the order of rows and tokens; None for the visual tokens of every row.
        changes: what each edit adds there.
        batch_size: edits per forward.

    Returns:
        Letter logits, and the probability of the three letters together.
    """
    if tokens is None:
        return edited_logits(model, case, changes, batch_size)
    seq = case.sequences
    logits, mass = list[Tensor](), list[Tensor]()
    remaining = iter(changes)
    with torch.no_grad():
        while batch := list(itertools.islice(remaining, batch_size)):
            hidden = seq.hidden.repeat(len(batch), 1, 1).unflatten(0, (len(batch), -1))
            for number, change in enumerate(batch):
                hidden[number][tokens] += change.to(hidden.dtype)
            some_logits, some_mass = letter_logits(model, seq, hidden.flatten(0, 1))
            logits.append(some_logits)
            mass.append(some_mass)
    orders = (-1, N_OPTIONS)
    return torch.cat(logits).unflatten(1, orders), torch.cat(mass).unflatten(1, orders)
