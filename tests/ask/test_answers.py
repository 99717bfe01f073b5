"""Answers: margins, counts and flips by hand, and letter biases that cancel."""

import math

import pytest
import torch

from ask.answers import answers, changes, expected_counts, margins

NAN = float("nan")


def test_margin_is_the_correct_logit_minus_the_logsumexp_of_the_wrong_ones() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, math.log(3.0), 1.0]])
    # 2 - log(1 + 1); 1 - log(1 + 3)
    assert margins(logits, torch.tensor([0, 2])).tolist() == pytest.approx([2 - math.log(2), 1 - math.log(4)])


def test_expected_count_weighs_the_numbers_behind_the_letters() -> None:
    logits = torch.tensor([math.log(2.0), 0.0, 0.0])  # probabilities 1/2, 1/4, 1/4
    assert float(expected_counts(logits, torch.tensor([2.0, 4.0, 8.0]))) == pytest.approx(4.0)


def _rotations(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor([[values[shift:] + values[:shift] for shift in range(3)]])


def test_the_average_over_cyclic_orders_cancels_a_preference_for_a_letter() -> None:
    # The same logits in every order: the model looks at the letters only.
    biased = torch.tensor([3.0, 0.0, -1.0]).repeat(1, 3, 1)
    mass = torch.ones(1, 3)
    found = [
        answers(biased, mass, torch.tensor([[(answer - shift) % 3 for shift in range(3)]]), _rotations((1.0, 2.0, 6.0)))
        for answer in range(3)
    ]
    assert [float(one.accuracy) for one in found] == pytest.approx([1 / 3] * 3)
    # Each option stands once behind each letter, so the expected count is the plain mean of 1, 2 and 6.
    assert [float(one.expected_count) for one in found] == pytest.approx([3.0] * 3)
    # The margin does not depend on which option is correct.
    assert len({round(float(one.margin), 5) for one in found}) == 1


def test_changes_by_hand() -> None:
    before = torch.zeros(1, 3, 3)
    before[:, :, 0] = 1.0  # the answer is A in every order
    after = before.clone()
    after[0, 0] = torch.tensor([0.0, 1.0, 0.0])  # in the first order it turns into B
    correct = torch.tensor([[0, 1, 2]])
    mass = torch.full((1, 3), 0.5)
    values = _rotations((1.0, 2.0, 3.0))
    found = changes(before, mass, after[None], torch.full((1, 1, 3), 0.25), correct, values)
    assert float(found.right_to_wrong) == pytest.approx(1 / 3)
    assert float(found.wrong_to_right) == 0.0
    assert float(found.delta_accuracy) == pytest.approx(-1 / 3)
    assert float(found.delta_option_mass) == pytest.approx(-0.25)
    # First order: 1 - log 2 before, 0 - log(e + 1) after; the others do not change.
    expected = (-math.log(math.e + 1) - (1 - math.log(2))) / 3
    assert float(found.delta_margin) == pytest.approx(expected, abs=1e-6)
    # With p = e/(e+2), q = 1/(e+2): the count moves by (q - p) x 1 + (p - q) x 2 in the first order only.
    share = (math.e - 1) / (math.e + 2)
    assert float(found.delta_expected_count) == pytest.approx(share / 3, abs=1e-6)
    # KL(after | before) = p log(p/q) + q log(q/p) = (p - q) log e in the first order only.
    assert float(found.kl) == pytest.approx(share / 3, abs=1e-6)


def test_noncounting_questions_have_no_expected_count() -> None:
    found = answers(
        torch.zeros(1, 3, 3), torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.int64), torch.full((1, 3, 3), NAN)
    )
    assert math.isnan(float(found.expected_count))
    assert float(found.margin) == pytest.approx(-math.log(2))
