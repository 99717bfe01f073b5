"""SmolVLM: frames squashed to a square, each after its time, squares of patches shuffled into one token."""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected


class SmolVlm(VlmFamily):
    """Frames take the path of images, after `Frame from MM:SS:`; the chat template is transformers' own."""

    model_type: ClassVar[str] = "smolvlm"
    default_frames: ClassVar[int] = 32
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values", "pixel_attention_mask")

    @property
    def closing_text(self) -> str:
        """Every frame is enclosed, and an empty line follows the last one."""
        return f"{self.processor.fake_image_token}\n\n"

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; rows and columns divide the whole frame evenly."""
        rows, cols = (side // self.config.vision_config.patch_size for side in pixels["pixel_values"].shape[-2:])
        scale = int(self.config.scale_factor)
        return (
            frame_grid(rows // scale, cols // scale, clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower over the frames of all clips."""
        out = self.core.get_image_features(pixels["pixel_values"], pixels["pixel_attention_mask"], return_dict=True)
        return Projected(features=torch.cat(list(out.pooler_output)))
