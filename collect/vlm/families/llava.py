"""LLaVA-OneVision and LLaVA-NeXT-Video: frames of one size through the tower, then pooled to a quarter."""

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from collect.tokens.grid import TokenGrid, cell_spans, frame_spans
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected

Spans = Float64[np.ndarray, "n 2"]


class _Llava(VlmFamily):
    """What both have: a tower of square frames and `get_video_features`."""

    @property
    def patch_px(self) -> int:
        """Side of a patch."""
        return int(self.config.vision_config.patch_size)

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower frame by frame, project, pool and join the frames of each clip."""
        out = self.core.get_video_features(pixels["pixel_values_videos"], return_dict=True)
        return Projected(features=out.pooler_output)


class LlavaOnevision(_Llava):
    """Frames are squashed to a square; bilinear pooling halves rows and columns, rounded up.

    After the last frame comes a learned newline, which has no place in the video. Pixels beyond the last whole
    patch (6 of 384) are not seen.
    """

    model_type: ClassVar[str] = "llava_onevision"
    default_frames: ClassVar[int] = 32
    n_newlines: ClassVar[int] = 1

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; a pooled cell is as long as the patches divided by the pooled cells."""
        height, width = pixels["pixel_values_videos"].shape[-2:]

        def spans(side: int, *, pooled: bool) -> Spans:
            n_patches = side // self.patch_px
            n = math.ceil(n_patches / 2) if pooled else n_patches
            return cell_spans(n, first=0.0, cell=n_patches * self.patch_px / n, total=float(side))

        def grid(*, pooled: bool) -> TokenGrid:
            return TokenGrid(
                spans_s=frame_spans(clip.times_s, clip.frame_rate),
                frame_ids=clip.frame_ids,
                row_spans=spans(height, pooled=pooled),
                col_spans=spans(width, pooled=pooled),
            )

        return grid(pooled=True), grid(pooled=False)


class LlavaNextVideo(_Llava):
    """Frames are resized to one length of the shorter side and cropped in the middle; squares of patches are pooled.

    No token sees what lies outside the crop, so the patch boxes do not cover the frame.
    """

    model_type: ClassVar[str] = "llava_next_video"
    default_frames: ClassVar[int] = 16

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """One time step per frame; rows and columns divide the crop."""
        crop_height, crop_width = pixels["pixel_values_videos"].shape[-2:]
        height, width = self._resized(clip)
        stride = int(self.config.spatial_pool_stride)

        def spans(crop: int, side: int, cell: int) -> Spans:
            return cell_spans(crop // cell, first=float(int((side - crop) / 2)), cell=float(cell), total=float(side))

        def grid(cell: int) -> TokenGrid:
            return TokenGrid(
                spans_s=frame_spans(clip.times_s, clip.frame_rate),
                frame_ids=clip.frame_ids,
                row_spans=spans(crop_height, height, cell),
                col_spans=spans(crop_width, width, cell),
            )

        return grid(stride * self.patch_px), grid(self.patch_px)

    def _resized(self, clip: Clip) -> tuple[int, int]:
        """Height and width of a frame before the crop."""
        size = self.processor.video_processor.size
        if not size.get("shortest_edge"):
            return size["height"], size["width"]
        short = size["shortest_edge"]
        long = int(short * max(clip.height, clip.width) / min(clip.height, clip.width))
        return (short, long) if clip.width >= clip.height else (long, short)
