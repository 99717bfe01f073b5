"""What every family of video VLMs must do; a family's test class subclasses `VideoVlmTests` and supplies a tiny model.

The tests run on random weights: they check where things are and that shortcuts equal the long way round, not meaning.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from collect.decode import Clip, decode_clip
from collect.errors import UserError
from collect.vlm import Prefix, VideoVlm
from tests.collect.video_files import EXACT, noise, write_video

QUESTIONS = ("How many toys appear in the video?", "Where is the ball hidden at the end of the video?\nA. left")
TOLERANCE = 2e-6
N_FRAMES = 4


def painted_pair(folder: Path, *, height: int, width: int, box: np.ndarray, frame: int) -> tuple[Path, Path]:
    """Two real MP4s that differ in one frame only, by a bright square that fills a box (x1, y1, x2, y2)."""
    plain = [noise(height, width)] * N_FRAMES
    painted = [image.copy() for image in plain]
    x1, y1, x2, y2 = (box * [width, height, width, height]).round().astype(int)
    painted[frame][y1:y2, x1:x2] = (255, 0, 0)
    return (
        write_video(folder / "plain.mp4", plain, options=EXACT),
        write_video(folder / "painted.mp4", painted, options=EXACT),
    )


class VideoVlmTests:
    @pytest.fixture
    def vlm(self) -> VideoVlm:
        raise NotImplementedError("a family supplies its tiny model")

    @pytest.fixture
    def clip(self) -> Clip:
        return clip_of([noise(48, 64, seed=i) for i in range(N_FRAMES)])

    @pytest.fixture
    def prefix(self, vlm: VideoVlm, clip: Clip) -> Prefix:
        return vlm.prefix(clip)

    @pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (180, 320)])
    @pytest.mark.parametrize("place", [0.0, 0.3, 0.55, 1.0])
    def test_a_painted_box_changes_the_token_that_lies_there_most(
        self, vlm: VideoVlm, tmp_path: Path, height: int, width: int, place: float
    ) -> None:
        blank = vlm.prefix(clip_of([noise(height, width)] * N_FRAMES)).grid
        k = round(place * (blank.n_tokens - 1))
        t, row, col = blank.coords()[k]
        frame = int(blank.frame_ids[t])
        paths = painted_pair(tmp_path, height=height, width=width, box=blank.box(int(row), int(col)), frame=frame)
        prefixes = [vlm.prefix(decode_clip(path, "v", N_FRAMES)) for path in paths]
        plain, painted = vlm.visual_residuals(prefixes, ["projector"])["projector"]
        assert int((painted - plain).norm(dim=1).argmax()) == k

    def test_grid_has_one_coordinate_per_visual_token(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        assert len(prefix.visual_positions) == prefix.grid.n_tokens == len(prefix.grid.coords())
        assert prefix.grid.n_tokens <= vlm.max_visual_tokens(N_FRAMES)
        assert prefix.grid.frame_ids[0] == clip.frame_ids[0]
        assert prefix.input_ids.shape[1] == prefix.visual_positions[-1] + 1  # nothing after the last visual token

    def test_prefix_and_suffix_are_the_processors_own_tokens(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        for question in QUESTIONS:
            turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
            text = vlm.processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            whole = vlm.processor(
                text=[text],
                videos=[list(clip.frames)],
                do_sample_frames=False,
                add_special_tokens=not text.startswith(vlm.processor.tokenizer.bos_token),
                return_tensors="pt",
            )["input_ids"]
            assert torch.equal(torch.cat([prefix.input_ids[0], vlm.suffix(question)])[None], whole)

    def test_visual_residuals_do_not_depend_on_the_question(self, vlm: VideoVlm, prefix: Prefix) -> None:
        alone = vlm.visual_residuals([prefix], vlm.sites())
        for question in QUESTIONS:
            emb = vlm.embed([prefix], [vlm.suffix(question)])
            for site in vlm.sites():
                with_question = vlm.residual(emb, site)[:, emb.visual_positions]
                assert torch.allclose(alone[site], with_question, atol=TOLERANCE), site

    def test_early_exit_equals_the_hidden_states_of_the_full_run(self, vlm: VideoVlm, prefix: Prefix) -> None:
        full = self.full_run(vlm, prefix, QUESTIONS[0])
        names = [f"resid_pre/{i}" for i in range(vlm.n_layers)]  # the last layer's own output is not among them
        found = vlm.visual_residuals([prefix], names)
        for hidden, name in zip(full.hidden_states, names, strict=False):
            assert torch.allclose(found[name][0], hidden[0, prefix.visual_positions], atol=TOLERANCE), name

    def test_output_of_a_layer_is_the_input_of_the_next(self, vlm: VideoVlm, prefix: Prefix) -> None:
        found = vlm.visual_residuals([prefix], vlm.sites())
        assert torch.equal(found["projector"], found["resid_pre/0"])
        for i in range(vlm.n_layers - 1):
            assert torch.equal(found[f"resid/{i}"], found[f"resid_pre/{i + 1}"])

    def test_no_layer_runs_after_the_last_site(self, vlm: VideoVlm, prefix: Prefix) -> None:
        ran: list[int] = []
        handles = [
            layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(vlm.decoder.layers)
        ]
        vlm.visual_residuals([prefix], ["projector"])
        vlm.visual_residuals([prefix], ["resid/1", "resid_pre/1"])
        for handle in handles:
            handle.remove()
        assert ran == [0, 1]

    def test_logits_resumed_after_any_site_equal_the_full_run(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix] * len(QUESTIONS), [vlm.suffix(question) for question in QUESTIONS])
        full = torch.cat([self.full_run(vlm, prefix, question).logits[:, -1] for question in QUESTIONS])
        for site in vlm.sites():
            logits = vlm.logits_from(site, vlm.residual(emb, site), emb)
            assert torch.allclose(logits, full, atol=TOLERANCE), site

    def test_logits_are_differentiable_in_the_residual(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site in ("projector", "resid/0"):
            residual = vlm.residual(emb, site).clone().requires_grad_()
            vlm.logits_from(site, residual, emb)[0, vlm.answer_ids()[0]].backward()
            assert residual.grad is not None
            assert residual.grad[:, emb.visual_positions].abs().sum() > 0

    def test_a_change_at_a_site_reaches_the_logits(self, vlm: VideoVlm, prefix: Prefix) -> None:
        emb = vlm.embed([prefix], [vlm.suffix(QUESTIONS[0])])
        for site in vlm.sites()[:-1]:  # after the last layer no token reads the visual ones any more
            residual = vlm.residual(emb, site)
            changed = residual.clone()
            changed[:, emb.visual_positions] += 1.0
            assert not torch.allclose(vlm.logits_from(site, changed, emb), vlm.logits_from(site, residual, emb))

    def test_the_tower_runs_once_per_distinct_prefix(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        seen: list[int] = []
        project = vlm.project

        def counted(pixels: dict[str, Tensor]) -> Tensor:
            seen.append(len(next(iter(pixels.values()))))
            return project(pixels)

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
            assert torch.allclose(alone, together, atol=TOLERANCE)

    def test_batches_equal_single_clips(self, vlm: VideoVlm, prefix: Prefix) -> None:
        other = vlm.prefix(clip_of([noise(48, 64, seed=50 + i) for i in range(N_FRAMES)]))
        together = vlm.visual_residuals([prefix, other], ["resid/1"])["resid/1"]
        for i, one in enumerate((prefix, other)):
            assert torch.allclose(
                together[i : i + 1], vlm.visual_residuals([one], ["resid/1"])["resid/1"], atol=TOLERANCE
            )

    def test_answer_letters_are_single_tokens(self, vlm: VideoVlm) -> None:
        ids = vlm.answer_ids(("A", "B", "C"))
        assert vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist()) == ["A", "B", "C"]

    def test_an_answer_of_several_tokens_is_refused(self, vlm: VideoVlm) -> None:
        with pytest.raises(UserError, match="no single token for the answer"):
            vlm.answer_ids(("A", "many toys"))

    def test_a_question_with_a_placeholder_is_refused(self, vlm: VideoVlm) -> None:
        placeholder = vlm.processor.tokenizer.convert_ids_to_tokens(vlm.visual_token_id)
        with pytest.raises(UserError, match="2 video placeholders"):
            vlm.suffix(f"What is {placeholder} ?")

    @staticmethod
    def full_run(vlm: VideoVlm, prefix: Prefix, question: str) -> object:
        ids = torch.cat([prefix.input_ids[0], vlm.suffix(question)])[None]
        with torch.no_grad():
            return vlm.model(input_ids=ids, **prefix.pixels, output_hidden_states=True)


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
