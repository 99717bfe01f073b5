"""What nobody reads is left out, and what is read stays as it was."""

import pytest
import torch

from ask.packing import Asked, letter_logits, read_letters, run_on, run_to, to_sequences
from ask.unread import without_unread
from collect.vlm import Embedded, VideoVlm
from tests.ask.test_packing import emb, vlm  # noqa: F401  # fixtures


def test_answers_are_those_of_the_whole_pass(vlm: VideoVlm, emb: Embedded) -> None:  # noqa: F811
    model = Asked.at(vlm, "resid/0")
    seq = run_to(vlm, to_sequences(emb, packed=True), ["resid/0"])["resid/0"]
    with torch.no_grad():
        whole = run_on(model, seq, seq.hidden)
        expected, expected_mass = read_letters(model, seq, whole)
        got, mass = letter_logits(model, seq, seq.hidden)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mass, expected_mass, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_whole_pass(vlm: VideoVlm, emb: Embedded) -> None:  # noqa: F811
    model = Asked.at(vlm, "resid/0")
    seq = run_to(vlm, to_sequences(emb, packed=True), ["resid/0"])["resid/0"]
    gradients = []
    for read in (
        lambda hidden: read_letters(model, seq, run_on(model, seq, hidden)),
        lambda h: letter_logits(model, seq, h),
    ):
        hidden = seq.hidden.clone().requires_grad_()
        read(hidden)[0].square().sum().backward()
        assert hidden.grad is not None
        gradients.append(hidden.grad)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_the_last_layer_runs_at_the_tokens_that_are_read_alone(vlm: VideoVlm, emb: Embedded) -> None:  # noqa: F811
    model = Asked.at(vlm, "resid/0")
    seq = run_to(vlm, to_sequences(emb, packed=True), ["resid/0"])["resid/0"]
    seen: list[int] = []
    layers = vlm.decoder.layers
    handles = [
        layer.mlp.gate_proj.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1])) for layer in layers
    ]
    n_tokens = seq.hidden.shape[1]
    with torch.no_grad(), without_unread(vlm.decoder, int(seq.visual_positions[-1]) + 1, seq.last):
        run_on(model, seq, seq.hidden)
    assert seen == [n_tokens] * (len(layers) - 2) + [len(seq.last)]
    with torch.no_grad():
        run_on(model, seq, seq.hidden)
    assert seen[-1] == n_tokens  # the hooks are gone
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("window", [None, 3])
def test_a_prefix_that_is_not_plainly_causal_keeps_its_mask(window: int | None) -> None:
    n, n_prefix = 10, 6
    query, key, value = torch.randn(3, 2, 4, n, 8, generator=torch.Generator().manual_seed(0)).unbind(0)
    allowed = torch.ones(n, n, dtype=torch.bool).tril()
    if window is not None:
        allowed &= ~torch.ones(n, n, dtype=torch.bool).tril(-window)
    attend = torch.nn.functional.scaled_dot_product_attention
    decoder = torch.nn.Module()
    decoder.layers = torch.nn.ModuleList([torch.nn.Identity()])
    expected = attend(query, key, value, attn_mask=allowed[None, None])
    with without_unread(decoder, n_prefix, torch.tensor([9])):
        got = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed[None, None])
    torch.testing.assert_close(got, expected)
