"""Gemma3: frames as images of a square, average-pooled; the tokens of a frame see each other in both directions."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from collect.errors import UserError
from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.base import VideoVlm, additive_mask
from collect.vlm.prompt import Projected


class Gemma3(VideoVlm):
    """It has no videos: every frame is an image of its own in the prompt, without pan and scan.

    Masks are made here, for whole layers and for those with a sliding window, because the decoder alone would be
    plainly causal. The prefix ends with the last frame's block, so that no block is ever cut.
    """

    family: ClassVar[str] = "gemma3"
    default_frames: ClassVar[int] = 8
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    by_frame: ClassVar[bool] = True

    def __init__(self, *, name: str, model: nn.Module, processor: Any, fingerprint: str) -> None:
        """Wrap a loaded model.

        Raises:
            UserError: its attention kernel takes no masks.
        """
        if "flash" in str(cast("Any", model).config.get_text_config()._attn_implementation):
            raise UserError(
                f"{name} lets the tokens of a frame see each other, which flash attention cannot: "
                "use --attn-implementation sdpa."
            )
        super().__init__(name=name, model=model, processor=processor, fingerprint=fingerprint)

    @property
    def placeholder(self) -> str:
        """What the template writes for a frame: the token that begins an image."""
        return str(self.processor.boi_token)

    @property
    def tail(self) -> str:
        """The end of the last image, and an empty line."""
        return f"{self.processor.tokenizer.eoi_token}\n\n"

    def media(self, clip: Clip) -> dict[str, Any]:
        """Frames are images; the model is told no times."""
        return {"images": [list(clip.frames)], "do_pan_and_scan": False}

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step a frame; rows and columns divide the whole frame evenly."""
        config = cast("Any", self.model).config
        rows, cols = (side // config.vision_config.patch_size for side in pixels["pixel_values"].shape[-2:])
        side = int(config.mm_tokens_per_image**0.5)
        return (
            frame_grid(side, side, clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor], n_clips: int) -> Projected:
        """Run the tower over the frames of all clips and part them again."""
        features: Tensor = self.core.get_image_features(pixels["pixel_values"], return_dict=True).pooler_output
        return Projected(features=features.reshape(n_clips, -1, features.shape[-1]))

    def blocks(self, input_ids: Int64[Tensor, " n_prefix"]) -> Int64[Tensor, " n_prefix"] | None:
        """One block a frame."""
        is_image = input_ids == self.visual_token_id
        begins = is_image & ~nn.functional.pad(is_image, (1, 0))[:-1]
        return torch.where(is_image, begins.cumsum(0) - 1, -1)

    def decoder_kwargs(
        self,
        *,
        position_ids: Int64[Tensor, "*axes row token"],
        visual_positions: Int64[Tensor, " visual"],  # noqa: ARG002
        layer: int,  # noqa: ARG002
        allowed: Bool[Tensor, "token token"] | None = None,
        blocks: Int64[Tensor, " token"] | None = None,
        deep: Float[Tensor, "deep row visual d_model"] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Masks for both kinds of layers: blocks beside what is allowed, and within the window where there is one."""
        positions = position_ids[0]  # the same in every row, where rows differ in their right padding only
        n = len(positions)
        seen = torch.ones(n, n, dtype=torch.bool, device=positions.device).tril() if allowed is None else allowed
        if blocks is not None:
            seen = seen | ((blocks[:, None] == blocks[None, :]) & (blocks >= 0)[:, None])
        window = cast("Any", self.model).config.get_text_config().sliding_window
        near = positions[None, :] > positions[:, None] - window
        masks = {
            "full_attention": additive_mask(seen, self.dtype),
            "sliding_attention": additive_mask(seen & near, self.dtype),
        }
        rows = position_ids.shape[-2]
        return {
            "position_ids": position_ids,
            "attention_mask": {name: mask.expand(rows, -1, -1, -1) for name, mask in masks.items()},
        }
