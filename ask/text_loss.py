"""Next-token loss over the text of a question and its answer, teacher-forced, after a video that may be edited.

Scored are the tokens of the user's text (question, options, instruction) and, after the whole prompt, the letter of the
correct option. What the chat template writes around the text is context and is not scored: its tokens are those which
the prompt with an empty text begins and ends with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ask.packing import Sequences
from collect.vlm import VideoVlm

_LOGITS_AT_ONCE = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class TextTargets:
    """The tokens to be predicted in the questions about one video, and where their logits are."""

    question: Int[Tensor, " target"]
    row: Int[Tensor, " target"]
    column: Int[Tensor, " target"]
    """Place of the token before the target, whose logits predict it."""
    token: Int[Tensor, " target"]
    """Id of the target."""


def text_targets(
    seq: Sequences,
    suffixes: Sequence[Int[Tensor, " _"]],
    template: Int[Tensor, " _"],
    answers: Int[Tensor, " question"],
) -> TextTargets:
    """Find the tokens to be predicted in questions that are laid out.

    Args:
        seq: the questions, in order.
        suffixes: token ids after the visual tokens of each question.
        template: the same for an empty text.
        answers: token id of the correct letter of each question.
    """
    last_of_prefix = int(seq.visual_positions[-1])
    rows, lasts, question, letters = (
        each.tolist() for each in (seq.question_row, seq.last, seq.question, answers)
    )  # at once, since each number would be waited for
    found: list[tuple[int, int, int, int]] = []
    for number, suffix in enumerate(suffixes):
        ids, row, last = suffix.tolist(), rows[number], lasts[number]
        first = last + 1 - len(ids)
        before, after = _affixes(ids, template.tolist())
        for place in range(before, len(ids) - after):
            column = first + place - 1
            # In a packed row, the token before a question is the last one of another question.
            is_own = question[row][column] == number
            found.append((number, row, column if is_own else last_of_prefix, ids[place]))
        found.append((number, row, last, letters[number]))
    columns = torch.tensor(found, device=seq.last.device).unbind(1)
    return TextTargets(question=columns[0], row=columns[1], column=columns[2], token=columns[3])


def text_loss(
    vlm: VideoVlm, out: Float[Tensor, "row token d_model"], targets: TextTargets
) -> Float[Tensor, " question"]:
    """Mean −log probability of each question's targets among the whole vocabulary, in nats.

    Args:
        vlm: the model.
        out: the decoder's output, from `run_on`.
        targets: from `text_targets`.
    """
    losses = list[Tensor]()
    vocabulary = vlm.head(out[:1, :1]).shape[-1]
    for part in torch.arange(len(targets.token), device=out.device).split(max(1, _LOGITS_AT_ONCE // vocabulary)):
        logits = vlm.head(out[targets.row[part], targets.column[part]])
        losses.append(torch.nn.functional.cross_entropy(logits, targets.token[part], reduction="none"))
    count = torch.bincount(targets.question)
    return torch.zeros(len(count), device=out.device).index_add(0, targets.question, torch.cat(losses)) / count


def _affixes(ids: list[int], template: list[int]) -> tuple[int, int]:
    """How many tokens of a prompt's beginning and of its end are the template's."""
    before = _common(ids, template)
    shortest = min(len(ids), len(template)) - before
    return before, min(shortest, _common(ids[::-1], template[::-1]))


def _common(a: list[int], b: list[int]) -> int:
    return next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
