"""Qwen2.5-VL and Qwen3-VL: frames at nearly their own size, two merged in time, positions on three axes."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from collect.tokens.grid import TokenGrid, frame_grid
from collect.video.decode import Clip
from collect.vlm.base import VideoVlm
from collect.vlm.prompt import Projected

MAX_ASPECT = 200
"""Longest side over shortest that the processors take."""


class _Qwen(VideoVlm):
    """What both have: `video_grid_thw`, patches in squares of merged ones, and rotary positions on three axes."""

    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos", "video_grid_thw")

    @property
    def merge(self) -> int:
        """Patches a side that become one visual token."""
        return int(self.processor.video_processor.merge_size)

    @property
    def frames_per_step(self) -> int:
        """Frames that become one time step; the last one is repeated where they do not come out even."""
        return int(self.processor.video_processor.temporal_patch_size)

    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """Rows and columns divide the whole frame, which is resized to a multiple of a token's side."""
        _, rows, cols = pixels["video_grid_thw"][0].tolist()

        def grid(cell: int) -> TokenGrid:
            return frame_grid(
                rows // cell, cols // cell, clip.times_s, clip.frame_ids, clip.frame_rate, self.frames_per_step
            )

        return grid(self.merge), grid(1)

    def project(self, pixels: Mapping[str, Tensor], n_clips: int) -> Projected:  # noqa: ARG002
        """Run the tower over all clips at once; attention stays within a time step."""
        out = self.core.get_video_features(pixels["pixel_values_videos"], pixels["video_grid_thw"], return_dict=True)
        return Projected(features=torch.stack(list(out.pooler_output)))

    def positions(self, inputs: Mapping[str, Any], n_prefix: int) -> tuple[Int64[Tensor, "axis n"] | None, int | None]:
        """The model's own three axes; text after the video goes on along all of them."""
        one_more = {name: inputs[name][:, : n_prefix + 1] for name in ("input_ids", "mm_token_type_ids")}
        # A text token after the last visual one shows where the text goes on.
        assert int(one_more["mm_token_type_ids"][0, -1]) == 0, "no text follows the video"
        found = self.core.get_rope_index(
            **one_more,
            video_grid_thw=inputs["video_grid_thw"],
            second_per_grid_ts=inputs.get("second_per_grid_ts"),
        )[0][:, 0]
        return found[:, :-1], int(found[0, -1])

    def max_visual_tokens(self, n_frames: int) -> int:
        """An upper bound over all shapes of frames, whose sides are rounded to whole tokens."""
        size = self.processor.video_processor.size
        side = self.merge * int(self.processor.video_processor.patch_size)
        share = self.share(n_frames)
        least, most = size["shortest_edge"] * share, size["longest_edge"] * share
        # Sides are rounded down where a frame is too large, but never below one token; up where it is too small.
        longest = math.sqrt(MAX_ASPECT * least) + math.sqrt(least)
        area = max(most, side * math.sqrt(MAX_ASPECT * most), least + side * longest + side**2)
        return math.ceil(n_frames / self.frames_per_step) * math.floor(area / side**2)

    @abstractmethod
    def share(self, n_frames: int) -> float:
        """Part of the processor's budget of pixels that one frame has."""

    def vision_tokens(
        self,
        hidden: Float[Tensor, "row d_vision"],
        pixels: Mapping[str, Tensor],  # noqa: ARG002
        n_clips: int,
        grid: TokenGrid,
    ) -> Float[Tensor, "batch token d_vision"]:
        """Patches stand in squares that are merged later: bring them into rows and columns."""
        m = self.merge
        squares = hidden.reshape(n_clips, grid.n_t, grid.n_rows // m, grid.n_cols // m, m, m, -1)
        return squares.permute(0, 1, 2, 4, 3, 5, 6).reshape(n_clips, grid.n_tokens, -1)


class Qwen25Vl(_Qwen):
    """One block of visual tokens; the temporal axis of the positions advances by seconds."""

    family: ClassVar[str] = "qwen2_5_vl"
    default_frames: ClassVar[int] = 32

    def share(self, n_frames: int) -> float:  # noqa: ARG002
        """Every frame has the whole budget."""
        return 1.0

    def vision_tokens(
        self, hidden: Float[Tensor, "row d_vision"], pixels: Mapping[str, Tensor], n_clips: int, grid: TokenGrid
    ) -> Float[Tensor, "batch token d_vision"]:
        """The tower sorts squares of patches by its attention windows; undo that first."""
        from transformers.vision_utils import get_vision_window_index

        config = cast("Any", self.model).config.vision_config
        index, _ = get_vision_window_index(
            pixels["video_grid_thw"],
            spatial_merge_size=config.spatial_merge_size,
            window_size=config.window_size,
            patch_size=config.patch_size,
        )
        squares = hidden.reshape(len(index), self.merge**2, -1)
        return super().vision_tokens(squares[torch.argsort(index)].flatten(0, 1), pixels, n_clips, grid)


class Qwen3Vl(_Qwen):
    """A time stamp before every time step, and DeepStack: further features are added after the first decoder layers.

    `resid/i` is what layer i returns, before its DeepStack features are added, and `resid_pre/i+1` what the next layer
    reads, after. The decoder can run on from either, since the features that are still to come are known.
    """

    family: ClassVar[str] = "qwen3_vl"
    default_frames: ClassVar[int] = 32

    @property
    def tail(self) -> str:
        """Every time step is enclosed."""
        return str(self.processor.vision_end_token)

    def media(self, clip: Clip) -> dict[str, Any]:
        """A single frame is given twice, as the last of an odd number is: the processor takes no fewer."""
        if len(clip.frames) < self.frames_per_step:
            n = self.frames_per_step
            frames, times_s = (np.repeat(x[:1], n, axis=0) for x in (clip.frames, clip.times_s))
            clip = replace(clip, frames=frames, times_s=times_s, frame_ids=np.repeat(clip.frame_ids[:1], n))
        return super().media(clip)

    def share(self, n_frames: int) -> float:
        """The frames share the budget; an odd number of them may be counted as one less."""
        return 1.0 / max(1, n_frames - n_frames % self.frames_per_step)

    def project(self, pixels: Mapping[str, Tensor], n_clips: int) -> Projected:  # noqa: ARG002
        """As in Qwen2.5-VL, with what earlier layers of the tower add to the first decoder layers."""
        out = self.core.get_video_features(pixels["pixel_values_videos"], pixels["video_grid_thw"], return_dict=True)
        deep = [torch.stack(list(features)) for features in out.deepstack_features]
        return Projected(features=torch.stack(list(out.pooler_output)), deep=torch.stack(deep) if deep else None)

    def decoder_kwargs(
        self,
        *,
        position_ids: Int64[Tensor, "*axes row token"],
        visual_positions: Int64[Tensor, " visual"],
        layer: int,
        deep: Float[Tensor, "deep row visual d_model"] | None = None,
        **rest: Any,
    ) -> dict[str, Any]:
        """Add the DeepStack features of this layer and later ones; those of earlier ones are in the residual."""
        kwargs = super().decoder_kwargs(
            position_ids=position_ids, visual_positions=visual_positions, layer=layer, **rest
        )
        if deep is not None:
            is_visual = torch.zeros(position_ids.shape[-2:], dtype=torch.bool, device=position_ids.device)
            is_visual[:, visual_positions] = True
            kwargs["visual_pos_masks"] = is_visual
            kwargs["deepstack_visual_embeds"] = [
                (features if i >= layer else torch.zeros_like(features)).flatten(0, 1)
                for i, features in enumerate(deep)
            ]
        return kwargs
