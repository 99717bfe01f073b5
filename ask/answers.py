"""What an answer is: margins, accuracy and expected counts from the logits of the three option letters.

Pure functions of tensors. The last axis of `logits` is the letters A, B, C; the axis `order` is the three cyclic orders
in which every item is asked. Averages over the orders cancel a preference for a letter: each option appears once under
each letter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def margins(logits: Float[Tensor, "*batch letter"], correct: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Logit of the correct letter minus the logsumexp of the wrong ones, in nats; differentiable."""
    is_correct = torch.nn.functional.one_hot(correct, logits.shape[-1]).bool()
    wrong = logits.masked_fill(is_correct, float("-inf"))
    # A gather and not a masked sum: the sum would turn an infinite logit of a wrong letter into NaN.
    return logits.gather(-1, correct[..., None])[..., 0] - torch.logsumexp(wrong, dim=-1)


def hits(logits: Float[Tensor, "*batch letter"], correct: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 where the highest letter is the correct one, else 0."""
    return (logits.argmax(dim=-1) == correct).to(logits.dtype)


def expected_counts(
    logits: Float[Tensor, "*batch letter"], values: Float[Tensor, "*#batch letter"]
) -> Float[Tensor, "*batch"]:
    """Expected count: the numbers that the letters stand for, weighted by the softmax over the letters."""
    return (torch.softmax(logits, dim=-1) * values).sum(dim=-1)


def divergences(
    before: Float[Tensor, "*#batch letter"], after: Float[Tensor, "*batch letter"]
) -> Float[Tensor, "*batch"]:
    """KL divergence of the letter distribution after an edit from the one before it, in nats."""
    log_before, log_after = torch.log_softmax(before, dim=-1), torch.log_softmax(after, dim=-1)
    return (log_after.exp() * (log_after - log_before)).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers to a number of items, each an average over the cyclic orders of its options."""

    margin: Float[Tensor, "*batch item"]
    accuracy: Float[Tensor, "*batch item"]
    """Share of the orders answered correctly."""
    expected_count: Float[Tensor, "*batch item"]
    """NaN for non-counting questions."""
    option_mass: Float[Tensor, "*batch item"]
    """Probability of the three letters together among all tokens of the vocabulary."""


def answers(
    logits: Float[Tensor, "*batch item order letter"],
    mass: Float[Tensor, "*batch item order"],
    correct: Int[Tensor, "item order"],
    values: Float[Tensor, "item order letter"],
) -> Answers:
    """Score letter logits.

    Args:
        logits: logits of the letters A, B, C.
        mass: probability of the three letters together.
        correct: position of the correct letter.
        values: numbers that the letters stand for; NaN for non-counting questions.
    """
    truth = correct.expand(logits.shape[:-1])
    return Answers(
        margin=margins(logits, truth).mean(dim=-1),
        accuracy=hits(logits, truth).mean(dim=-1),
        expected_count=expected_counts(logits, values.expand(logits.shape)).mean(dim=-1),
        option_mass=mass.mean(dim=-1),
    )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an intervention changes in the answers to a number of items, averaged over the cyclic orders."""

    delta_margin: Float[Tensor, "*batch item"]
    delta_accuracy: Float[Tensor, "*batch item"]
    right_to_wrong: Float[Tensor, "*batch item"]
    wrong_to_right: Float[Tensor, "*batch item"]
    delta_expected_count: Float[Tensor, "*batch item"]
    delta_option_mass: Float[Tensor, "*batch item"]
    kl: Float[Tensor, "*batch item"]


def changes(
    before: Float[Tensor, "item order letter"],
    mass_before: Float[Tensor, "item order"],
    after: Float[Tensor, "*batch item order letter"],
    mass_after: Float[Tensor, "*batch item order"],
    correct: Int[Tensor, "item order"],
    values: Float[Tensor, "item order letter"],
) -> Changes:
    """Compare letter logits before and after interventions; arguments as for `answers`."""
    old, new = answers(before, mass_before, correct, values), answers(after, mass_after, correct, values)
    right_before, right_after = hits(before, correct), hits(after, correct.expand(after.shape[:-1]))
    return Changes(
        delta_margin=new.margin - old.margin,
        delta_accuracy=new.accuracy - old.accuracy,
        right_to_wrong=(right_before * (1 - right_after)).mean(dim=-1),
        wrong_to_right=((1 - right_before) * right_after).mean(dim=-1),
        delta_expected_count=new.expected_count - old.expected_count,
        delta_option_mass=new.option_mass - old.option_mass,
        kl=divergences(before, after).mean(dim=-1),
    )
