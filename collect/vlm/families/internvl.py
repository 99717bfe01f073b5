"""InternVL: frames squashed to a square, each after a header, squares of patches shuffled into one token."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected


class InternVl(VlmFamily):
    """Frames take the path of images: `Frame1: <img>…</img>`, with the token id of images."""

    model_type: ClassVar[str] = "internvl"
    default_frames: ClassVar[int] = 8
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)

    @property
    def closing_text(self) -> str:
        """Each frame is enclosed in tokens."""
        return str(self.processor.end_image_token)

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; rows and columns divide the whole frame evenly."""
        patch = self.config.vision_config.patch_size
        patch_height, patch_width = patch if isinstance(patch, list | tuple) else (patch, patch)
        height, width = pixels["pixel_values"].shape[-2:]
        rows, cols, ratio = height // patch_height, width // patch_width, self.config.downsample_ratio
        return (
            frame_grid(int(rows * ratio), int(cols * ratio), clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower over the frames of all clips."""
        features: Tensor = self.core.get_image_features(pixels["pixel_values"], return_dict=True).pooler_output
        return Projected(features=features)
