"""Tests of prompts: they must be what the checkpoint's own processor and chat template make."""

import pytest
import torch

from collect.errors import UserError
from collect.video.decode import Clip
from collect.vlm import Prefix, VideoVlm
from collect.vlm.conformance.subject import N_FRAMES, QUESTIONS, Subject


class PromptTests(Subject):
    """Prefixes, suffixes, answers."""

    def test_prefix_and_suffix_are_the_processors_own_tokens(self, vlm: VideoVlm, prefix: Prefix, clip: Clip) -> None:
        for question in QUESTIONS:
            whole = vlm.processed(clip, question)["input_ids"]
            assert torch.equal(torch.cat([prefix.input_ids[0], vlm.suffix(question)])[None], whole)

    def test_prompt_is_the_chat_template_with_the_video_first(self, vlm: VideoVlm, clip: Clip) -> None:
        question = QUESTIONS[0]
        media = [{"type": "image"}] * N_FRAMES if vlm.family.frames_are_images else [{"type": "video"}]
        turn = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
        text = vlm.family.processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        decode = vlm.family.processor.tokenizer.decode
        assert decode(vlm.suffix(question)).strip().endswith(text[text.index(question) :].strip())
        head = decode(vlm.prefix(clip).input_ids[0])
        assert question not in head
        assert head.strip().startswith(text[: text.index(vlm.family.placeholder)].strip())

    def test_answer_letters_are_single_tokens(self, vlm: VideoVlm) -> None:
        ids = vlm.answer_ids(("A", "B", "C"))
        assert vlm.family.processor.tokenizer.convert_ids_to_tokens(ids.tolist()) == ["A", "B", "C"]

    def test_an_answer_of_several_tokens_is_refused(self, vlm: VideoVlm) -> None:
        with pytest.raises(UserError, match="no single token for the answer"):
            vlm.answer_ids(("A", "many toys"))

    def test_a_question_with_a_placeholder_is_refused(self, vlm: VideoVlm) -> None:
        with pytest.raises(UserError, match="2 video placeholders"):
            vlm.suffix(f"What is {vlm.family.placeholder} ?")

    def test_a_question_with_a_visual_token_is_refused(self, vlm: VideoVlm) -> None:
        token = vlm.family.processor.tokenizer.convert_ids_to_tokens(vlm.family.visual_token_id)
        with pytest.raises(UserError, match=r"2 video placeholders|keeps for what it sees"):
            vlm.suffix(f"What is {token} ?")
