"""A family as a person would add it in a package of their own: LLaVA 1.5, which has no videos, frame by frame.

It uses what `collect.vlm`, `collect.tokens` and `collect.video` offer to everyone, and nothing of these tests.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm import Projected, VlmFamily
from collect.vlm.conformance import byte_tokenizer, chat_template, save_checkpoint


class LlavaFrames(VlmFamily):
    """Frames are images, squashed to a square; every patch is a visual token."""

    model_type: ClassVar[str] = "llava"
    default_frames: ClassVar[int] = 8
    frames_are_images: ClassVar[bool] = True
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)

    @property
    def placeholder(self) -> str:
        return str(self.processor.image_token)

    def processor_arguments(self, clip: Clip) -> dict[str, Any]:
        return {"images": [list(clip.frames)]}

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        rows, cols = (side // self.config.vision_config.patch_size for side in pixels["pixel_values"].shape[-2:])
        grid = frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate)
        return grid, grid

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        out = self.core.get_image_features(pixels["pixel_values"], return_dict=True)
        return Projected(features=torch.cat(list(out.pooler_output)))


def tiny_checkpoint(folder: Path) -> Path:
    """Frames of 32 px, 4 patches a side."""
    from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer = byte_tokenizer("<image>")
    square = {"height": 32, "width": 32}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=square, do_center_crop=False),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("<video>", "<image>\n"),
    )
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "image_size": 32,
            "patch_size": 8,
            "num_hidden_layers": 2,
            **sizes,
        },
        text_config={"model_type": "llama", "num_hidden_layers": 3, "vocab_size": len(tokenizer), **sizes},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: LlavaForConditionalGeneration(config), processor)
