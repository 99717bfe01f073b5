"""Passes that begin at the edit, or behind it, give what passes over everything give, in every tiny family."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ask.cases import Case, build_case, edited_logits, embed_items, residuals_at
from ask.packing import Asked
from collect.vlm import VideoVlm
from steer.screens.prefix import KnownPrefix, Prefixes, SparseChange
from tests.collect.conftest import tiny_folders, tiny_vlms  # noqa: F401  # fixtures
from tests.collect.tiny_models import BUILDERS
from tests.steer.hooked import visual_mask
from tests.steer.test_hooked import CLIP, ITEMS

LAYER = 0


@pytest.fixture(params=BUILDERS)
def vlm(request: pytest.FixtureRequest, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:  # noqa: F811
    return tiny_vlms(request.param)


def case_of(vlm: VideoVlm, site: str) -> tuple[Asked, Case]:
    model = Asked.at(vlm, site)
    prefix = vlm.with_features([vlm.prefix(CLIP)])[0]
    return model, build_case(model, residuals_at(vlm, embed_items(vlm, prefix, ITEMS, packed=True), site), ITEMS)


def edits_of(case: Case) -> list[SparseChange]:
    """Edits of one token, of the last one, of some, of all, and of none."""
    generator = torch.Generator().manual_seed(0)
    visual = case.sequences.visual
    n = len(visual)
    size = float(visual.norm(dim=1).median()) / visual.shape[1] ** 0.5
    tokens = [torch.tensor(each, dtype=torch.int64) for each in ([n // 2], [n - 1], [3, 7, n - 2], range(n), [])]
    return [
        SparseChange(token=token, change=200 * size * torch.randn(len(token), visual.shape[1], generator=generator))
        for token in tokens
    ]


def dense(case: Case, edit: SparseChange) -> Tensor:
    change = torch.zeros_like(case.sequences.visual)
    change[edit.token] = edit.change
    return change


def test_changes_are_the_same_dense_and_sparse() -> None:
    edit = SparseChange(token=torch.tensor([1, 4]), change=torch.tensor([[1.0, 0.0], [0.0, -2.0]]))
    whole = edit.dense(5)
    assert whole.nonzero().tolist() == [[1, 0], [4, 1]]
    again = SparseChange.of(whole)
    assert torch.equal(again.token, edit.token)
    assert torch.equal(again.change, edit.change)


@pytest.mark.parametrize("site", ["projector", f"resid/{LAYER}", "resid/1"])
def test_what_is_before_the_edit_is_not_run_again(vlm: VideoVlm, site: str) -> None:
    model, case = case_of(vlm, site)
    known, edits = KnownPrefix(model, case), edits_of(case)
    expected, expected_mass = edited_logits(model, case, (dense(case, each) for each in edits), 5)
    assert (expected - case.logits).abs().amax(dim=(1, 2, 3))[3] > 1e-3  # the edits are seen
    prefixes = Prefixes(model)
    for order in ([0], [1, 0], [3], [2, 1], [0, 1, 2, 3, 4], [4], [1]):  # what one pass leaves disturbs no other
        logits, mass = known.total([edits[each] for each in order])
        torch.testing.assert_close(logits, expected[order], rtol=0, atol=1e-4)
        torch.testing.assert_close(mass, expected_mass[order], rtol=0, atol=1e-4)
        few = case.of_items([0, 2])  # the same prefix, in front of fewer questions
        logits, mass = prefixes.answers(few, (dense(case, edits[each]) for each in order), 2)
        torch.testing.assert_close(logits, expected[order][:, [0, 2]], rtol=0, atol=1e-4)
        torch.testing.assert_close(mass, expected_mass[order][:, [0, 2]], rtol=0, atol=1e-4)
        logits, _ = known.direct([edits[4]])
        torch.testing.assert_close(logits[0], case.logits, rtol=0, atol=1e-4)


def direct_by_hooks(vlm: VideoVlm, text: str, layer: int, change: Tensor) -> Tensor:
    """Logits at the last token when keys and values alone, and only for the question's tokens, see a change.

    A plain pass of the transformers model over the whole prompt, without any cache. Every attention after the layer is
    run twice: on its own input, and with its input at the visual tokens made of the unedited residual plus the change.
    The tokens of the question take what the second gives, all others what the first does.
    """
    inputs = vlm.processed(CLIP, text)
    mask = visual_mask(vlm, inputs)
    end = int(mask.nonzero()[len(change) - 1, 0]) + 1
    mask[end:] = False  # a learned newline behind the last frame, which reads the frames like the text
    decoder: Any = vlm.decoder
    residuals: list[Tensor] = []
    handles = [
        each.register_forward_pre_hook(
            lambda _, args, kw: residuals.append(args[0] if args else kw["hidden_states"]), with_kwargs=True
        )
        for each in decoder.layers
    ]
    with torch.no_grad():
        vlm.model(**inputs, use_cache=False)
    for handle in handles:
        handle.remove()
    replaced: list[Tensor] = []
    for number in range(len(decoder.layers)):
        x = residuals[number].clone()
        if number > layer:
            x[0, mask] += change
        replaced.append(x)

    # The whole prompt again; in each attention the rows of the prefix attend as before, those of the question attend to
    # keys and values of the changed residuals.
    def mixed(number: int) -> Any:
        original = decoder.layers[number].self_attn.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            own: Tensor = kwargs.pop("hidden_states") if "hidden_states" in kwargs else args[0]
            rest = args[1:]
            changed = own.clone()
            changed[0, mask] = decoder.layers[number].input_layernorm(replaced[number])[0, mask]
            as_before = original(own, *rest, **kwargs)
            seen = original(changed, *rest, **kwargs)
            out = as_before[0].clone()
            out[:, end:] = seen[0][:, end:]
            return (out, *as_before[1:])

        return original, forward

    saved = {}
    for number in range(layer + 1, len(decoder.layers)):
        original, forward = mixed(number)
        saved[number] = original
        decoder.layers[number].self_attn.forward = forward
    try:
        with torch.no_grad():
            return vlm.model(**inputs, use_cache=False).logits[0, -1].float()
    finally:
        for number in saved:
            del decoder.layers[number].self_attn.forward


def test_the_direct_effect_is_that_of_plain_hooks(vlm: VideoVlm) -> None:
    model, case = case_of(vlm, f"resid/{LAYER}")
    known, edits = KnownPrefix(model, case), edits_of(case)
    letters = vlm.answer_ids()
    expected = torch.stack(
        [
            torch.stack([direct_by_hooks(vlm, text, LAYER, dense(case, edit))[letters] for text in item.prompts])
            for edit in edits
            for item in ITEMS
        ]
    ).unflatten(0, (len(edits), len(ITEMS)))
    got, _ = known.direct(edits)
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)
    total, _ = known.total(edits)
    assert (got - case.logits).abs().max() > 1e-4
    assert (got - total).abs().max() > 1e-4  # it is not the whole effect
    again, _ = known.direct(edits)
    torch.testing.assert_close(again, got, rtol=0, atol=1e-5)
