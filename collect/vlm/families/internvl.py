"""InternVL: frames squashed to a square, each behind a header, squares of patches shuffled into one token."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.base import VideoVlm
from collect.vlm.prompt import Projected


class InternVl(VideoVlm):
    """Frames go through the path of images: `Frame1: <img>…</img>`, with the token id of images."""

    family: ClassVar[str] = "internvl"
    default_frames: ClassVar[int] = 8
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)

    @property
    def tail(self) -> str:
        """Every frame is enclosed."""
        return str(self.processor.end_image_token)

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step a frame; rows and columns divide the whole frame evenly."""
        config = cast("Any", self.model).config
        patch = config.vision_config.patch_size
        patch_height, patch_width = patch if isinstance(patch, list | tuple) else (patch, patch)
        height, width = pixels["pixel_values"].shape[-2:]
        rows, cols, ratio = height // patch_height, width // patch_width, config.downsample_ratio
        return (
            frame_grid(int(rows * ratio), int(cols * ratio), clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor], n_clips: int) -> Projected:
        """Run the tower over the frames of all clips and part them again."""
        features: Tensor = self.core.get_image_features(pixels["pixel_values"], return_dict=True).pooler_output
        return Projected(features=features.reshape(n_clips, -1, features.shape[-1]))
