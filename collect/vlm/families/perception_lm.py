"""PerceptionLM: each frame squashed to a square, patched, and average-pooled after the projector."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected


class PerceptionLm(VlmFamily):
    """Tokens form one block without separators; rows and columns divide the whole frame evenly."""

    model_type: ClassVar[str] = "perception_lm"
    default_frames: ClassVar[int] = 16

    @property
    def d_vision(self) -> int:
        """Width of the vision tower's tokens."""
        return int(self.config.vision_config.model_args["embed_dim"])

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; the pooling merges squares of patches."""
        height, width = pixels["pixel_values_videos"].shape[-2:]
        patch_px = int(self.processor.patch_size)
        cell_px = patch_px * int(self.processor.pooling_ratio)
        return (
            frame_grid(height // cell_px, width // cell_px, clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(height // patch_px, width // patch_px, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower frame by frame."""
        features: Tensor = self.core.get_image_features(pixels["pixel_values_videos"], return_dict=True).pooler_output
        return Projected(features=features)
