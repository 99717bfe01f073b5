from typing import Any

import numpy as np
import pytest
import torch

from collect.chat import Chat
from collect.errors import UserError
from collect.vlm import VideoVlm


@pytest.fixture
def chat(vlm: VideoVlm) -> Chat:
    return Chat("tiny", vlm.processor, vlm.visual_token_id)


def words(vlm: VideoVlm, ids: torch.Tensor) -> list[str]:
    return vlm.processor.tokenizer.convert_ids_to_tokens(ids.tolist())


def test_head_and_suffix_enclose_the_video(chat: Chat, vlm: VideoVlm) -> None:
    assert words(vlm, chat.head) == ["<bos>", "user"]
    assert words(vlm, chat.suffix("How many cubes")) == ["How", "many", "cubes", "assistant"]


def test_whole_prompt_has_one_placeholder_per_visual_token(chat: Chat, vlm: VideoVlm) -> None:
    frames = list(np.zeros((2, 32, 32, 3), dtype=np.uint8))
    ids = chat.whole("How many cubes", frames)
    assert int((ids == vlm.visual_token_id).sum()) == 2 * 16
    assert torch.equal(ids[ids != vlm.visual_token_id], torch.cat([chat.head, chat.suffix("How many cubes")]))


def test_first_token_is_not_written_twice(chat: Chat, vlm: VideoVlm) -> None:
    assert chat.head.tolist().count(vlm.processor.tokenizer.bos_token_id) == 1


def test_a_template_without_a_video_is_refused(vlm: VideoVlm) -> None:
    class Processor:
        tokenizer = vlm.processor.tokenizer

        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            return "<bos> user"

    with pytest.raises(UserError, match="tiny gives 0 video placeholders"):
        Chat("tiny", Processor(), vlm.visual_token_id)
