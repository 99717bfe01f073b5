"""Cut and kept attention in every tiny family whose attention can be edited: invariants that hold exactly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ask.cases import Case, build_case, embed_items, residuals_at
from ask.packing import Asked
from collect.errors import UserError
from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of
from steer.edits.operations import Scope
from steer.edits.placed import text_tokens
from steer.mechanism.attention import AttentionEdits, Cut, Kept, logits_under, require_attention
from steer.mechanism.flow import ROUTES, readers, windows
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.video_files import noise
from tests.steer.toy import ToyVlm, counting_item, toy_case, visual

CLIP = clip_of([noise(48, 64, seed=i) for i in range(4)])
ITEMS = (counting_item("v", 0), counting_item("v", 1, options=("2", "4", "7")))
FAMILIES = ("perception_lm", "llava_onevision", "qwen2_5_vl")


@pytest.fixture(params=FAMILIES)
def asked(request: pytest.FixtureRequest, tiny_vlms: Callable[[str], VideoVlm]) -> tuple[Asked, Case]:  # noqa: F811
    model = Asked.at(tiny_vlms(request.param), "resid/0")
    prefix = model.vlm.with_features([model.vlm.prefix(CLIP)])[0]
    seq = residuals_at(model.vlm, embed_items(model.vlm, prefix, ITEMS, packed=True), model.site)
    return model, build_case(model, seq, ITEMS)


def n_left(model: Asked) -> int:
    return model.vlm.n_layers - 1


def disturbed(case: Case, tokens: torch.Tensor) -> torch.Tensor:
    hidden = case.sequences.hidden.clone()
    hidden[0, tokens] += 100 * torch.randn(
        int(tokens.sum()), hidden.shape[2], generator=torch.Generator().manual_seed(0)
    )
    return hidden


def some_visual(case: Case) -> torch.Tensor:
    tokens = torch.zeros(case.sequences.hidden.shape[1], dtype=torch.bool)
    tokens[case.sequences.visual_positions[::2]] = True
    return tokens


def test_without_edits_the_answers_are_those_of_the_case(asked: tuple[Asked, Case]) -> None:
    model, case = asked
    logits, _ = logits_under(model, case.sequences, case.sequences.hidden, AttentionEdits())
    torch.testing.assert_close(logits[0].unflatten(0, (-1, 3)), case.logits, rtol=1e-4, atol=1e-4)


def test_tokens_that_nobody_may_read_have_no_effect(asked: tuple[Asked, Case]) -> None:
    model, case = asked
    seq, keys = case.sequences, some_visual(case)
    cut = Cut(queries=~keys, keys=keys, layers=range(n_left(model)))
    clean, _ = logits_under(model, seq, seq.hidden, AttentionEdits([cut]))
    other, _ = logits_under(model, seq, disturbed(case, keys), AttentionEdits([cut]))
    torch.testing.assert_close(other, clean, rtol=1e-5, atol=1e-5)
    free, _ = logits_under(model, seq, disturbed(case, keys), AttentionEdits())
    assert (free - clean).abs().max() > 1e-4  # the disturbance is seen where it may be read


def test_all_routes_together_are_every_reader(asked: tuple[Asked, Case]) -> None:
    _, case = asked
    event = some_visual(case)
    parts = [readers(case, route, event) for route in ROUTES]
    assert torch.equal(parts[0] | parts[1] | parts[2], parts[3])
    assert not (parts[0] & parts[1]).any()
    assert not (parts[1] & parts[2]).any()
    assert not (parts[3] & event).any()
    assert torch.equal(parts[2], text_tokens(case.sequences, Scope(kind="last"))[0])


def test_kept_attention_of_the_same_pass_changes_nothing_and_another_one_does(asked: tuple[Asked, Case]) -> None:
    model, case = asked
    seq, kept = case.sequences, Kept()
    clean, _ = logits_under(model, seq, seq.hidden, AttentionEdits(record=kept))
    assert len(kept.layers) == n_left(model)
    again, _ = logits_under(model, seq, seq.hidden.repeat(2, 1, 1), AttentionEdits(keep=kept))
    torch.testing.assert_close(again, clean.repeat(2, 1, 1), rtol=1e-5, atol=1e-5)
    hidden = disturbed(case, some_visual(case))
    held, _ = logits_under(model, seq, hidden, AttentionEdits(keep=kept))
    free, _ = logits_under(model, seq, hidden, AttentionEdits())
    assert not torch.equal(held, free)
    assert not torch.allclose(held, clean, rtol=1e-5, atol=1e-5)


def test_a_token_may_always_read_itself() -> None:
    every = torch.ones(3, dtype=torch.bool)
    assert Cut(queries=every, keys=every, layers=(0,)).pairs.tolist() == [
        [False, True, True],
        [True, False, True],
        [True, True, False],
    ]


def test_a_model_whose_attention_cannot_be_edited_is_refused_by_name() -> None:
    vlm: Any = ToyVlm()
    case = toy_case(vlm, visual(torch.ones(4)), (counting_item(),))
    model = Asked(vlm=vlm, site="resid/0", letters=torch.tensor([0, 1, 2]))
    with pytest.raises(UserError, match="toy calls PyTorch's attention 0 times in 1 layers"):
        require_attention(model, case.sequences)


def test_windows_are_all_layers_and_then_parts_of_them() -> None:
    assert windows(1) == [range(1)]
    assert windows(2) == [range(2), range(1), range(1, 2)]
    assert windows(7) == [range(7), range(3), range(3, 5), range(5, 7)]
