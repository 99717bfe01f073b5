"""Qwen2.5-VL and Qwen3-VL: frames at nearly their own size, two merged in time, positions on three axes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Projected


class _Qwen(VlmFamily):
    """What both have: `video_grid_thw`, patches in squares of merged ones, and rotary positions on three axes."""

    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "video_grid_thw")

    @property
    def merge(self) -> int:
        """Patches along each side that become one visual token."""
        return int(self.processor.video_processor.merge_size)

    @property
    def frames_per_step(self) -> int:
        """Frames that become one time step; the last one is repeated if the number is not a multiple of this."""
        return int(self.processor.video_processor.temporal_patch_size)

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """Rows and columns divide the whole frame, which is resized to a multiple of a token's side."""
        _, rows, cols = pixels["video_grid_thw"][0].tolist()

        def grid(cell: int) -> TokenGrid:
            return frame_grid(
                rows // cell, cols // cell, clip.times_s, clip.frame_ids, clip.frame_rate, self.frames_per_step
            )

        return grid(self.merge), grid(1)

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """Run the tower over all clips at once; attention stays within a time step."""
        out = self.core.get_video_features(pixels["pixel_values_videos"], pixels["video_grid_thw"], return_dict=True)
        return Projected(features=torch.cat(list(out.pooler_output)))

    def position_ids(self, inputs: Mapping[str, Any]) -> Int64[Tensor, "axis token"]:
        """The model's own three axes; text after the video continues along all of them."""
        assert int(inputs["mm_token_type_ids"][0, -1]) == 0, "no text follows the video"
        return self.core.get_rope_index(
            input_ids=inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            video_grid_thw=inputs["video_grid_thw"],
            second_per_grid_ts=inputs.get("second_per_grid_ts"),
        )[0][:, 0]

    def vision_tokens(
        self, hidden: Float[Tensor, "row d_vision"], grid: TokenGrid
    ) -> Float[Tensor, "clip token d_vision"]:
        """Patches come in squares that are merged later: put them in rows and columns."""
        m = self.merge
        squares = hidden.reshape(-1, grid.n_t, grid.n_rows // m, grid.n_cols // m, m, m, hidden.shape[-1])
        return squares.permute(0, 1, 2, 4, 3, 5, 6).reshape(-1, grid.n_tokens, hidden.shape[-1])


class Qwen25Vl(_Qwen):
    """One block of visual tokens; the temporal axis of the positions advances by seconds."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    default_frames: ClassVar[int] = 32

    def vision_tokens(
        self, hidden: Float[Tensor, "row d_vision"], grid: TokenGrid
    ) -> Float[Tensor, "clip token d_vision"]:
        """The tower sorts squares of patches by its attention windows; undo that first."""
        from transformers.vision_utils import get_vision_window_index

        config = self.config.vision_config
        n_clips = len(hidden) // grid.n_tokens
        index, _ = get_vision_window_index(
            torch.tensor([[grid.n_t, grid.n_rows, grid.n_cols]] * n_clips, device=hidden.device),
            spatial_merge_size=config.spatial_merge_size,
            window_size=config.window_size,
            patch_size=config.patch_size,
        )
        squares = hidden.reshape(len(index), self.merge**2, -1)
        return super().vision_tokens(squares[torch.argsort(index)].flatten(0, 1), grid)


class Qwen3Vl(_Qwen):
    """A time stamp before every time step, and DeepStack: further features are added after the first decoder layers.

    `resid/i` is what layer i returns, before its DeepStack features are added, and `resid_pre/i+1` what the next layer
    reads, after. The decoder can be resumed from either, since the features that are still to be added are known.
    """

    model_type: ClassVar[str] = "qwen3_vl"
    default_frames: ClassVar[int] = 32

    @property
    def closing_text(self) -> str:
        """Each time step is enclosed in tokens."""
        return str(self.processor.vision_end_token)

    def processor_arguments(self, clip: Clip) -> dict[str, Any]:
        """A single frame is given twice, like the last of an odd number: the processor needs at least two."""
        if len(clip.frames) < self.frames_per_step:
            n = self.frames_per_step
            frames, times_s = (np.repeat(x[:1], n, axis=0) for x in (clip.frames, clip.times_s))
            clip = replace(clip, frames=frames, times_s=times_s, frame_ids=np.repeat(clip.frame_ids[:1], n))
        return super().processor_arguments(clip)

    def project(self, pixels: Mapping[str, Tensor]) -> Projected:
        """As in Qwen2.5-VL, with what earlier layers of the tower add to the first decoder layers."""
        out = self.core.get_video_features(pixels["pixel_values_videos"], pixels["video_grid_thw"], return_dict=True)
        deepstack = [torch.cat(list(features)) for features in out.deepstack_features]
        return Projected(
            features=torch.cat(list(out.pooler_output)), deepstack=torch.stack(deepstack) if deepstack else None
        )
