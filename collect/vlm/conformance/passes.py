"""Tests of forward passes: every shortcut must equal the long way round.

The long way round is the model's own forward pass on everything that its own processor makes of a clip and a question.
"""

import copy
from collections.abc import Mapping
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from collect.errors import UserError
from collect.video.decode import Clip
from collect.vlm import Prefix, PrefixCache, Projected, VideoVlm
from collect.vlm.conformance.clips import clip_of, close, noise
from collect.vlm.conformance.subject import N_FRAMES, QUESTIONS, Subject
from collect.vlm.sites import DECODER_KINDS

HIDDEN = ("resid_pre/0", "resid/0", "resid/1")
"""Where transformers takes its `hidden_states`; the last ones come after the final norm."""


class PassTests(Subject):
    """Hidden states at sites, logits resumed after them, batches."""

    def test_visual_tokens_do_not_depend_on_the_question(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        sites = vlm.residual_sites()
        alone = vlm.visual_residuals([prefix], sites)
        for question in QUESTIONS:
            emb = vlm.embed([prefix], [vlm.suffix(question)])
            full = full_run(vlm, clip, question).hidden_states
            for site in sites:
                assert close(vlm.residual(emb, site)[:, emb.visual_positions], alone[site]), site
            for site, own in zip(HIDDEN, full, strict=False):
                assert close(alone[site], own[:, prefix.visual_positions]), site

    def test_hooks_read_what_the_models_own_pass_has_there(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        full = full_run(vlm, clip, QUESTIONS[0])
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site, own in zip(HIDDEN, full.hidden_states, strict=False):
            assert close(vlm.residual(emb, site), own), site

    def test_sublayers_add_up_to_the_layer(self, vlm: VideoVlm, prefix: Prefix) -> None:
        found = vlm.visual_residuals([prefix], vlm.sites())
        for i in range(vlm.n_layers):
            before, attention, mlp, after = (found[f"{kind}/{i}"] for kind in DECODER_KINDS)
            assert close(before + attention + mlp, after), i
            assert not close(before, after)
        assert torch.equal(found["projector"], found["resid_pre/0"])

    def test_output_of_a_layer_is_the_input_of_the_next(self, vlm: VideoVlm, prefix: Prefix) -> None:
        found = vlm.visual_residuals([prefix], vlm.residual_sites())
        deepstack = vlm.with_features([prefix])[0].deepstack
        for i in range(vlm.n_layers - 1):
            added = deepstack[i] if deepstack is not None and i < len(deepstack) else 0.0
            assert torch.equal(found[f"resid/{i}"] + added, found[f"resid_pre/{i + 1}"])

    def test_sites_read_together_are_those_read_alone(self, vlm: VideoVlm, prefix: Prefix) -> None:
        together = vlm.visual_residuals([prefix], vlm.sites())
        assert tuple(together) == vlm.sites()
        for site, hidden in together.items():
            assert torch.equal(vlm.visual_residuals([prefix], [site])[site], hidden), site
            assert hidden.shape[1:] == (vlm.grid(prefix, site).n_tokens, vlm.width(site))

    def test_nothing_runs_after_the_last_site(self, vlm: VideoVlm, prefix: Prefix) -> None:
        ran: list[str] = []
        decoder_layers = cast("nn.ModuleList", vlm.decoder.layers)
        handles = [
            layer.register_forward_hook(lambda *_, name=f"{side}{i}": ran.append(name))
            for side, layers in (("vision", vlm.family.vision_layers), ("decoder", decoder_layers))
            for i, layer in enumerate(layers)
        ]
        vlm.visual_residuals([prefix], ["vision/0"])
        assert ran == ["vision0"]
        vlm.visual_residuals([prefix], ["projector"])
        vlm.visual_residuals([prefix], ["resid/1", "attn_out/1"])
        for handle in handles:
            handle.remove()
        assert [name for name in ran if name.startswith("decoder")] == ["decoder0", "decoder1"]

    def test_logits_resumed_after_any_site_equal_the_full_run(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        emb = vlm.embed([prefix] * len(QUESTIONS), [vlm.suffix(question) for question in QUESTIONS])
        full = torch.cat([full_run(vlm, clip, question).logits[:, -1] for question in QUESTIONS])
        for site in vlm.residual_sites():
            assert close(vlm.logits_from(site, vlm.residual(emb, site), emb), full), site

    def test_logits_with_a_cached_prefix_equal_the_full_run(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        cache = PrefixCache(vlm, prefix)
        full = torch.cat([full_run(vlm, clip, question).logits[:, -1] for question in QUESTIONS])
        for _ in range(2):  # the cache is as it was after use
            assert close(cache.logits([vlm.suffix(question) for question in QUESTIONS]), full)

    def test_there_is_no_running_on_from_what_is_not_the_residual(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site in set(vlm.sites()) - set(vlm.residual_sites()):
            with pytest.raises(UserError, match=f"cannot run on from {site}"):
                vlm.residual(emb, site)
            with pytest.raises(UserError, match=f"cannot run on from {site}"):
                vlm.logits_from(site, emb.inputs_embeds, emb)

    def test_logits_are_differentiable_in_the_residual(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site in ("projector", "resid/0"):
            residual = vlm.residual(emb, site).clone().requires_grad_()
            vlm.logits_from(site, residual, emb)[0, vlm.answer_ids()[0]].backward()
            assert residual.grad is not None
            assert residual.grad[:, emb.visual_positions].abs().sum() > 0

    def test_a_change_at_a_site_reaches_the_logits(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site in vlm.residual_sites()[:-1]:  # after the last layer no token reads the visual ones any more
            residual = vlm.residual(emb, site)
            changed = residual.clone()
            changed[:, emb.visual_positions] += torch.linspace(-1.0, 1.0, vlm.d_model)
            assert not close(vlm.logits_from(site, changed, emb), vlm.logits_from(site, residual, emb), 1e-4)

    def test_the_tower_runs_once_per_distinct_prefix(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        n_clips: list[int] = []
        project = vlm.family.project

        def counted(pixels: Mapping[str, Tensor]) -> Projected:
            projected = project(pixels)
            n_clips.append(projected.features[..., 0].numel() // len(prefix.feature_positions))
            return projected

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vlm.family, "project", counted)
            other = vlm.prefix(clip)
            suffix = vlm.suffix(QUESTIONS[1])
            emb = vlm.embed([prefix, prefix, other], [suffix] * 3)
            kept = vlm.with_features([prefix])
            vlm.embed(kept * 2, [suffix] * 2)
        assert n_clips == [2, 1]
        assert torch.equal(emb.inputs_embeds[0], emb.inputs_embeds[1])

    def test_padding_changes_nothing(self, vlm: VideoVlm, prefix: Prefix) -> None:
        short, long = (vlm.suffix(question) for question in ("How many ?", QUESTIONS[1]))
        both = vlm.embed([prefix, prefix], [short, long])
        assert both.attention_mask.sum(dim=1).tolist() == [
            prefix.input_ids.shape[1] + len(short),
            prefix.input_ids.shape[1] + len(long),
        ]
        for i, suffix in enumerate((short, long)):
            one = vlm.embed([prefix], [suffix])
            alone = vlm.logits_from("resid/0", vlm.residual(one, "resid/0"), one)
            together = vlm.logits_from("resid/0", vlm.residual(both, "resid/0"), both)[i : i + 1]
            assert close(together, alone)

    def test_batches_equal_single_clips(self, vlm: VideoVlm, prefix: Prefix) -> None:
        other = vlm.prefix(clip_of([noise(48, 64, seed=50 + i) for i in range(N_FRAMES)]))
        assert other.layout == prefix.layout
        together = vlm.visual_residuals([prefix, other], vlm.sites())
        for i, one in enumerate((prefix, other)):
            for site, hidden in vlm.visual_residuals([one], vlm.sites()).items():
                assert close(together[site][i : i + 1], hidden), site

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, vlm: VideoVlm, prefix: Prefix, dtype: torch.dtype) -> None:
        sites = ["vision/0", "resid/1"]
        family = type(vlm.family)(vlm.name, copy.deepcopy(vlm.model).to(dtype), vlm.family.processor)
        halved = VideoVlm(family, fingerprint=vlm.fingerprint)
        single, half = (one.visual_residuals([prefix], sites) for one in (vlm, halved))
        emb = halved.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        assert halved.logits_from("resid/1", halved.residual(emb, "resid/1"), emb).dtype == torch.float32
        for site, hidden in half.items():
            assert hidden.dtype == dtype
            assert close(hidden.float(), single[site], 0.1), site


def full_run(vlm: VideoVlm, clip: Clip, question: str) -> Any:
    """The model's own forward pass."""
    with torch.no_grad():
        return vlm.model(**vlm.processed(clip, question), output_hidden_states=True)
