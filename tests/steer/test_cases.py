"""Cases: the unedited answers, sparse codes, and edits of the toy worked out by hand."""

import math

import pytest
import torch

from ask.answers import answers
from ask.cases import edited_logits
from ask.packing import Asked
from steer.codes import VideoCodes
from tests.steer.toy import GAIN, LETTERS, N_VISUAL, ToyVlm, counting_item, noncounting_item, toy_case, toy_sae, visual

EVIDENCE_TOKENS = torch.tensor([0.0, 1.0, 2.0, 3.0])
SHARE = GAIN / (1 + N_VISUAL + 4)
"""What the last of 1 + 4 + 4 tokens sees of each visual token's evidence."""


def test_unedited_answers_by_hand() -> None:
    vlm = ToyVlm()
    case = toy_case(vlm, visual(EVIDENCE_TOKENS), (counting_item(options=("1", "2", "3"), answer_id=2),))
    seen = 6 * SHARE  # 0 + 1 + 2 + 3
    # The logit of a letter is the evidence times its number, in each cyclic order.
    expected = torch.tensor([[[1.0, 2, 3], [2, 3, 1], [3, 1, 2]]]) * seen
    torch.testing.assert_close(case.logits, expected)
    found = answers(case.logits, case.mass, case.correct, case.values)
    assert float(found.accuracy) == 1.0
    margin = 3 * seen - math.log(math.exp(seen) + math.exp(2 * seen))
    assert float(found.margin) == pytest.approx(margin, abs=1e-5)


@pytest.mark.parametrize("packed", [True, False])
def test_an_edit_reaches_every_item_of_its_copy_and_no_other(packed: bool) -> None:
    vlm = ToyVlm()
    items = (counting_item(question_id=0), counting_item(question_id=1, options=("4", "5", "6")), noncounting_item())
    case = toy_case(vlm, visual(EVIDENCE_TOKENS), items, packed=packed)
    more = torch.zeros(N_VISUAL, 8)
    more[1, 0] = 3.0  # evidence rises from 6 to 9
    changes = [torch.zeros(N_VISUAL, 8), more, -more]
    for batch_size in (1, 2, 8):
        logits, mass = edited_logits(Asked(vlm=vlm, site="resid/0", letters=LETTERS), case, iter(changes), batch_size)
        assert logits.shape == (3, 3, 3, 3)
        assert mass.shape == (3, 3, 3)
        torch.testing.assert_close(logits[0], case.logits)
        torch.testing.assert_close(logits[1], case.logits * 9 / 6)
        torch.testing.assert_close(logits[2], case.logits * 3 / 6)


@pytest.mark.parametrize("packed", [True, False])
def test_a_case_of_fewer_items_is_the_same_case_without_the_others(packed: bool) -> None:
    vlm = ToyVlm()
    items = (noncounting_item(question_id=0), counting_item(question_id=1, options=("4", "5", "6")))
    case = toy_case(vlm, visual(EVIDENCE_TOKENS), items, packed=packed)
    only = case.of_items(case.counting)
    assert only.items == items[1:]
    again, _ = edited_logits(Asked(vlm=vlm, site="resid/0", letters=LETTERS), only, [torch.zeros(N_VISUAL, 8)], 4)
    torch.testing.assert_close(again[0], case.logits[1:])
    torch.testing.assert_close(only.logits, case.logits[1:])


def test_codes_are_the_dense_codes() -> None:
    residuals = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    sae = toy_sae()
    codes = VideoCodes.of(sae, residuals)
    torch.testing.assert_close(codes.columns([0, 3, 7]), sae.encode(residuals)[:, [0, 3, 7]])
    assert codes.fires([0])
    assert codes.fires([7, 0])
    assert not codes.fires([7])
