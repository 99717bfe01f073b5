"""What differs between families of video VLMs: one class each, found by the `model_type` of its configuration.

A new family is a subclass of `VideoVlm` decorated with `register`; the shared tests say whether it is right.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

from jaxtyping import Float
from torch import Tensor

from collect.decode import Clip
from collect.token_grid import TokenGrid, frame_spans
from collect.vlm import VideoVlm

FAMILIES: dict[str, type[VideoVlm]] = {}


def register(cls: type[VideoVlm]) -> type[VideoVlm]:
    """Make a family known to `load_vlm`."""
    FAMILIES[cls.family] = cls
    return cls


@register
class PerceptionLm(VideoVlm):
    """PerceptionLM: each frame squashed to a square, patched, and average-pooled after the projector.

    Tokens stand in one block without separators. Rows and columns divide the whole frame evenly.
    """

    family: ClassVar[str] = "perception_lm"
    default_frames: ClassVar[int] = 16

    @property
    def visual_token_id(self) -> int:
        """Id of `<|video|>`."""
        return int(cast("Any", self.model).config.video_token_id)

    def preprocess(self, clip: Clip) -> tuple[dict[str, Tensor], TokenGrid]:
        """Squash the frames to the tower's size; one time step a frame."""
        pixels: Tensor = self.processor.video_processor(
            videos=[clip.frames], do_sample_frames=False, return_tensors="pt"
        )["pixel_values_videos"]
        cell_px = self.processor.patch_size * self.processor.pooling_ratio
        grid = TokenGrid.uniform(
            n_rows=pixels.shape[-2] // cell_px,
            n_cols=pixels.shape[-1] // cell_px,
            spans_s=frame_spans(clip.times_s, clip.frame_rate),
            frame_ids=clip.frame_ids,
        )
        return {"pixel_values_videos": pixels}, grid

    def project(self, pixels: Mapping[str, Tensor]) -> Float[Tensor, "batch visual d_model"]:
        """Run the tower frame by frame and join the frames of each clip."""
        frames = pixels["pixel_values_videos"]
        features: Tensor = cast("Any", self.model).model.get_image_features(frames, return_dict=True).pooler_output
        return features.reshape(len(frames), -1, features.shape[-1])
