"""What every family of video VLMs must do; a family's test class subclasses `VideoVlmTests` and supplies a tiny model.

The tests run on random weights: they check where things are and that shortcuts equal the long way round, not meaning.
The long way round is the model's own forward pass on all that its own processor makes of a clip and a question.
"""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from collect.artefact.json_fields import Fields
from collect.errors import UserError
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip, decode_clip
from collect.vlm import Prefix, Projected, VideoVlm
from collect.vlm.sites import DECODER_KINDS
from tests.collect.video_files import EXACT, noise, write_video

QUESTIONS = ("How many toys appear in the video?", "Where is the ball hidden at the end of the video?\nA. left")
HIDDEN = ("resid_pre/0", "resid/0", "resid/1")
"""Where transformers takes its `hidden_states`; the last ones come after the final norm."""
N_FRAMES = 4
SHAPES = ((96, 128), (128, 96), (72, 128))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether tensors are equal up to rounding, in units of the second one's largest number."""
    return a.shape == b.shape and float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def painted_pair(clip: Clip, box: np.ndarray, frame: int) -> tuple[Clip, Clip]:
    """The clip, and one with a bright square that fills a box (x1, y1, x2, y2) of one frame."""
    x1, y1, x2, y2 = (box * [clip.width, clip.height, clip.width, clip.height]).round().astype(int)
    frames = clip.frames.copy()
    frames[frame, y1:y2, x1:x2] = (255, 0, 0)
    return clip, dataclasses.replace(clip, frames=frames)


class VideoVlmTests:
    family: str
    """Which of `tests.collect.tiny_models.BUILDERS` to test."""
    coarse = False
    """Whether a time step covers several frames."""

    @pytest.fixture
    def vlm(self, tiny_vlms: Callable[[str], VideoVlm]) -> VideoVlm:
        return tiny_vlms(self.family)

    @pytest.fixture
    def clip(self) -> Clip:
        return clip_of([noise(48, 64, seed=i) for i in range(N_FRAMES)])

    @pytest.fixture
    def prefix(self, vlm: VideoVlm, clip: Clip) -> Prefix:
        return vlm.prefix(clip)

    @pytest.mark.parametrize(("height", "width"), SHAPES)
    @pytest.mark.parametrize("place", [0.0, 0.3, 0.55, 1.0])
    def test_a_painted_box_changes_the_token_that_lies_there_most(
        self, vlm: VideoVlm, height: int, width: int, place: float
    ) -> None:
        blank = clip_of([noise(height, width)] * N_FRAMES)
        self.check_painted(vlm, blank, "projector", place)

    @pytest.mark.parametrize(("height", "width"), SHAPES[:2])
    @pytest.mark.parametrize("place", [0.3, 0.8])
    def test_a_painted_box_changes_the_patch_that_lies_there_most(
        self, vlm: VideoVlm, height: int, width: int, place: float
    ) -> None:
        blank = clip_of([noise(height, width)] * N_FRAMES)
        self.check_painted(vlm, blank, "vision/0", place)

    @staticmethod
    def check_painted(vlm: VideoVlm, blank: Clip, site: str, place: float) -> None:
        grid = vlm.grid(vlm.prefix(blank), site)
        k = round(place * (grid.n_tokens - 1))
        t, row, col = grid.coords()[k]
        frame = blank.frame_ids.tolist().index(int(grid.frame_ids[t]))
        pair = painted_pair(blank, grid.box(int(row), int(col)), frame)
        plain, painted = vlm.visual_residuals([vlm.prefix(clip) for clip in pair], [site])[site]
        assert len(plain) == grid.n_tokens
        assert int((painted - plain).norm(dim=1).argmax()) == k

    def test_a_box_painted_into_a_real_video_is_found_again(self, vlm: VideoVlm, tmp_path: Path) -> None:
        blank = clip_of([noise(240, 320)] * N_FRAMES)
        grid = vlm.prefix(blank).grid
        k = round(0.6 * grid.n_tokens)
        t, row, col = grid.coords()[k]
        pair = painted_pair(blank, grid.box(int(row), int(col)), int(grid.frame_ids[t]))
        prefixes = []
        for name, clip in zip(("plain.mp4", "painted.mp4"), pair, strict=True):
            path = write_video(tmp_path / name, list(clip.frames), options=EXACT)
            prefixes.append(vlm.prefix(decode_clip(path, "v", N_FRAMES)))
        plain, painted = vlm.visual_residuals(prefixes, ["projector"])["projector"]
        assert int((painted - plain).norm(dim=1).argmax()) == k

    @pytest.mark.parametrize("n_frames", [1, 4, 5])
    def test_grid_has_one_coordinate_per_visual_token(self, vlm: VideoVlm, n_frames: int) -> None:
        clip = clip_of([noise(48, 64, seed=i) for i in range(n_frames)])
        prefix = vlm.prefix(clip)
        assert len(prefix.visual_positions) == prefix.grid.n_tokens == len(prefix.grid.coords())
        assert prefix.grid.n_tokens <= vlm.max_visual_tokens(n_frames)
        assert vlm.grid(prefix, "vision/0").n_tokens <= vlm.max_tokens(n_frames, "vision/0")
        assert prefix.grid.frame_ids[0] == clip.frame_ids[0]
        assert prefix.grid.n_t == (-(-n_frames // 2) if self.coarse else n_frames)
        assert prefix.input_ids.shape[1] == prefix.slots[-1] + 1  # nothing after the last placeholder
        is_visual = prefix.input_ids[0] == vlm.visual_token_id
        assert torch.equal(is_visual.nonzero()[:, 0], prefix.slots)
        assert torch.equal(prefix.slots[: prefix.grid.n_tokens], prefix.visual_positions)

    def test_a_grid_survives_the_store(self, vlm: VideoVlm, prefix: Prefix) -> None:
        for grid in (prefix.grid, vlm.grid(prefix, "vision/0")):
            again = TokenGrid.from_fields(Fields(grid.to_json(), "grid"))
            assert np.array_equal(again.boxes, grid.boxes)
            assert np.array_equal(again.coords(), grid.coords())

    def test_prefix_and_suffix_are_the_processors_own_tokens(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        for question in QUESTIONS:
            whole = vlm.processed(clip, question)["input_ids"]
            assert torch.equal(torch.cat([prefix.input_ids[0], vlm.suffix(question)])[None], whole)

    def test_prompt_is_the_chat_template_with_the_video_first(self, vlm: VideoVlm, clip: Clip) -> None:
        question = QUESTIONS[0]
        media = [{"type": "image"}] * N_FRAMES if vlm.by_frame else [{"type": "video"}]
        turn = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
        text = vlm.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        decode = vlm.processor.tokenizer.decode
        assert decode(vlm.suffix(question)).strip().endswith(text[text.index(question) :].strip())
        head = decode(vlm.prefix(clip).input_ids[0])
        assert question not in head
        assert head.strip().startswith(text[: text.index(vlm.placeholder)].strip())

    def test_visual_tokens_do_not_depend_on_the_question(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        sites = vlm.residual_sites()
        alone = vlm.visual_residuals([prefix], sites)
        for question in QUESTIONS:
            emb = vlm.embed([prefix], [vlm.suffix(question)])
            full = self.full_run(vlm, clip, question).hidden_states
            for site in sites:
                assert close(vlm.residual(emb, site)[:, emb.visual_positions], alone[site]), site
            for site, own in zip(HIDDEN, full, strict=False):
                assert close(alone[site], own[:, prefix.visual_positions]), site

    def test_hooks_read_what_the_models_own_pass_has_there(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        full = self.full_run(vlm, clip, QUESTIONS[0])
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
        deep = vlm.with_features([prefix])[0].deep
        for i in range(vlm.n_layers - 1):
            added = deep[i] if deep is not None and i < len(deep) else 0.0
            assert torch.equal(found[f"resid/{i}"] + added, found[f"resid_pre/{i + 1}"])

    def test_sites_read_together_are_those_read_alone(self, vlm: VideoVlm, prefix: Prefix) -> None:
        together = vlm.visual_residuals([prefix], vlm.sites())
        assert tuple(together) == vlm.sites()
        for site, hidden in together.items():
            assert torch.equal(vlm.visual_residuals([prefix], [site])[site], hidden), site
            assert hidden.shape[1:] == (vlm.grid(prefix, site).n_tokens, vlm.width(site))

    def test_nothing_runs_after_the_last_site(self, vlm: VideoVlm, prefix: Prefix) -> None:
        ran: list[str] = []
        handles = [
            layer.register_forward_hook(lambda *_, name=f"{side}{i}": ran.append(name))
            for side, layers in (("vision", vlm.vision_layers), ("decoder", vlm.decoder.layers))
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
        full = torch.cat([self.full_run(vlm, clip, question).logits[:, -1] for question in QUESTIONS])
        for site in vlm.residual_sites():
            assert close(vlm.logits_from(site, vlm.residual(emb, site), emb), full), site

    def test_logits_with_a_cached_prefix_equal_the_full_run(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        cache = vlm.cache_prefix(prefix)
        full = torch.cat([self.full_run(vlm, clip, question).logits[:, -1] for question in QUESTIONS])
        for _ in range(2):  # the cache is as it was after use
            assert close(vlm.logits_after(cache, [vlm.suffix(question) for question in QUESTIONS]), full)

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
        seen: list[int] = []
        project = vlm.project

        def counted(pixels: dict[str, Tensor], n_clips: int) -> Projected:
            seen.append(n_clips)
            return project(pixels, n_clips)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vlm, "project", counted)
            other = vlm.prefix(clip)
            suffix = vlm.suffix(QUESTIONS[1])
            emb = vlm.embed([prefix, prefix, other], [suffix] * 3)
            kept = vlm.with_features([prefix])
            vlm.embed(kept * 2, [suffix] * 2)
        assert seen == [2, 1]
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

    def test_clips_of_other_layout_are_told_apart(self, vlm: VideoVlm, prefix: Prefix) -> None:
        longer = vlm.prefix(clip_of([noise(48, 64)] * (N_FRAMES + 2)))
        assert longer.layout != prefix.layout
        turned = vlm.prefix(clip_of([noise(64, 48)] * N_FRAMES))
        same = (turned.grid.n_rows, turned.grid.n_cols) == (prefix.grid.n_rows, prefix.grid.n_cols)
        assert (turned.layout == prefix.layout) == same

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, vlm: VideoVlm, prefix: Prefix, dtype: torch.dtype) -> None:
        sites = ["vision/0", "resid/1"]
        halved = copy.copy(vlm)
        halved.model = copy.deepcopy(vlm.model).to(dtype)
        halved.__dict__.pop("vision_layers", None)
        single, half = (one.visual_residuals([prefix], sites) for one in (vlm, halved))
        emb = halved.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        assert halved.logits_from("resid/1", halved.residual(emb, "resid/1"), emb).dtype == torch.float32
        for site, hidden in half.items():
            assert hidden.dtype == dtype
            assert close(hidden.float(), single[site], 0.1), site

    def test_answer_letters_are_single_tokens(self, vlm: VideoVlm) -> None:
        ids = vlm.answer_ids(("A", "B", "C"))
        assert vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist()) == ["A", "B", "C"]

    def test_an_answer_of_several_tokens_is_refused(self, vlm: VideoVlm) -> None:
        with pytest.raises(UserError, match="no single token for the answer"):
            vlm.answer_ids(("A", "many toys"))

    def test_a_question_with_a_placeholder_is_refused(self, vlm: VideoVlm) -> None:
        with pytest.raises(UserError, match="2 video placeholders"):
            vlm.suffix(f"What is {vlm.placeholder} ?")

    def test_a_question_with_a_visual_token_is_refused(self, vlm: VideoVlm) -> None:
        token = vlm.processor.tokenizer.convert_ids_to_tokens(vlm.visual_token_id)
        with pytest.raises(UserError, match=r"2 video placeholders|keeps for what it sees"):
            vlm.suffix(f"What is {token} ?")

    @staticmethod
    def full_run(vlm: VideoVlm, clip: Clip, question: str) -> Any:
        with torch.no_grad():
            return vlm.model(**vlm.processed(clip, question), output_hidden_states=True)


def clip_of(frames: list[np.ndarray]) -> Clip:
    ids = np.arange(len(frames), dtype=np.int64)
    return Clip(
        video_id="v",
        path=Path("v.mp4"),
        frames=np.stack(frames),
        times_s=ids / 30.0,
        frame_ids=ids,
        frame_rate=30.0,
        n_frames=len(frames),
    )
