"""Gemma3: frames as images of a square, average-pooled; the tokens of a frame see each other in both directions."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected


class Gemma3(VlmFamily):
    """It has no videos: every frame is an image of its own in the prompt, without pan and scan.

    The prefix ends with the last frame's block, so that no block is ever cut.
    """

    model_type: ClassVar[str] = "gemma3"
    default_frames: ClassVar[int] = 8
    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    frames_are_images: ClassVar[bool] = True
    has_bidirectional_frames: ClassVar[bool] = True

    @property
    def placeholder(self) -> str:
        """What the template writes for a frame: the token that begins an image."""
        return str(self.processor.boi_token)

    @property
    def closing_text(self) -> str:
        """The end of the last image, and an empty line."""
        return f"{self.processor.tokenizer.eoi_token}\n\n"

    @property
    def sliding_window(self) -> int | None:
        """Most layers see only a window."""
        return int(self.config.get_text_config().sliding_window)

    def processor_arguments(self, clip: Clip) -> dict[str, Any]:
        """Frames are images, without their times."""
        return {"images": [list(clip.frames)], "do_pan_and_scan": False}

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; rows and columns divide the whole frame evenly."""
        rows, cols = (side // self.config.vision_config.patch_size for side in pixels["pixel_values"].shape[-2:])
        side = int(self.config.mm_tokens_per_image**0.5)
        return (
            frame_grid(side, side, clip.times_s, clip.frame_ids, clip.frame_rate),
            frame_grid(rows, cols, clip.times_s, clip.frame_ids, clip.frame_rate),
        )

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower over the frames of all clips."""
        features: Tensor = self.core.get_image_features(pixels["pixel_values"], return_dict=True).pooler_output
        return Projected(features=features)
