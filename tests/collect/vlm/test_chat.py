from typing import Any

import pytest
import torch

from collect.errors import UserError
from collect.vlm import VideoVlm
from collect.vlm.chat import Chat


@pytest.fixture
def chat(vlm: VideoVlm) -> Chat:
    return Chat(
        "tiny", vlm.family.processor, placeholder=vlm.family.placeholder, visual_token_id=vlm.family.visual_token_id
    )


def words(vlm: VideoVlm, ids: torch.Tensor) -> list[str]:
    return vlm.family.processor.tokenizer.convert_ids_to_tokens(ids.tolist())


def test_text_is_the_template_with_one_placeholder(chat: Chat) -> None:
    assert chat.text("How many cubes").split() == ["<bos>", "user", "<|video|>", "How", "many", "cubes", "assistant"]


def test_suffix_is_what_follows_the_video(chat: Chat, vlm: VideoVlm) -> None:
    assert words(vlm, chat.suffix("How many cubes")) == ["How", "many", "cubes", "assistant"]


def test_closing_text_comes_before_the_text(vlm: VideoVlm) -> None:
    chat = Chat(
        "tiny",
        vlm.family.processor,
        placeholder="<|video|>",
        visual_token_id=vlm.family.visual_token_id,
        closing_text=" <eos> ",
    )
    assert words(vlm, chat.suffix("How")) == ["<eos>", "How", "assistant"]


def test_one_placeholder_a_frame(vlm: VideoVlm) -> None:
    chat = Chat(
        "tiny",
        vlm.family.processor,
        placeholder="<|image|>",
        visual_token_id=vlm.family.processor.image_token_id,
        kind="image",
    )
    assert chat.text("How", 3).split() == ["<bos>", "user", *["<|image|>"] * 3, "How", "assistant"]
    assert words(vlm, chat.suffix("How")) == ["How", "assistant"]


def test_first_token_is_not_written_twice(chat: Chat) -> None:
    assert chat.tokenizer_arguments(chat.text("How")) == {"add_special_tokens": False}
    assert chat.tokenizer_arguments("How") == {"add_special_tokens": True}


def test_a_template_without_a_video_is_refused(vlm: VideoVlm) -> None:
    class Processor:
        tokenizer = vlm.family.processor.tokenizer

        def apply_chat_template(self, *_: Any, **__: Any) -> str:
            return "<bos> user"

    with pytest.raises(UserError, match="tiny gives 0 video placeholders"):
        Chat("tiny", Processor(), placeholder="<|video|>", visual_token_id=vlm.family.visual_token_id)
