"""Prompts of a VLM: a clip through its own processor, cut after the last visual token, and the text that follows."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from collect.errors import UserError
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip
from collect.vlm.clip_metadata import blank_clip, video_metadata
from collect.vlm.parts import LoadedModel
from collect.vlm.prompt import Prefix


class PromptingModel(LoadedModel):
    """What turns clips and questions into prefixes and suffixes."""

    vision_inputs: ClassVar[tuple[str, ...]] = ("pixel_values_videos",)
    """What the processor makes for the vision tower, by its names."""
    n_unplaced: ClassVar[int] = 0
    """Placeholders at the end that belong to no place in the video."""
    _is_chat_checked = False

    @abstractmethod
    def grids(self, pixels: Mapping[str, Tensor], clip: Clip) -> tuple[TokenGrid, TokenGrid]:
        """Where the visual tokens, and the tokens of the vision tower, lie in a clip that was preprocessed so."""

    def processed(self, clip: Clip, question: str = "") -> dict[str, Any]:
        """All inputs of the model for a clip and a question, as its own processor makes them."""
        text = self._chat.text(question, len(clip.frames))
        return dict(
            self.processor(text=[text], **self.media(clip), return_tensors="pt", **self._chat.specials(text)).items()
        )

    def media(self, clip: Clip) -> dict[str, Any]:
        """The processor's arguments for a clip: its frames as they are, with the times at which they are shown."""
        return {"videos": [clip.frames], "video_metadata": [video_metadata(clip)], "do_sample_frames": False}

    def positions(self, inputs: Mapping[str, Any], n_prefix: int) -> tuple[Int64[Tensor, "axis n"] | None, int | None]:  # noqa: ARG002
        """Positions of the prefix and of the first token after it; None where they count from 0 along one axis.

        Args:
            inputs: what `processed` gave.
            n_prefix: tokens of the prefix.
        """
        return None, None

    def blocks(self, input_ids: Int64[Tensor, " n_prefix"]) -> Int64[Tensor, " n_prefix"] | None:  # noqa: ARG002
        """Block in which each token of the prefix sees every other one, -1 outside; None in a causal model."""
        return None

    def prefix(self, clip: Clip) -> Prefix:
        """Preprocess a clip and tokenise the prompt up to its last visual token. Runs on the CPU, in any thread.

        Raises:
            UserError: the checkpoint's processor does not lay out tokens as its family does.
        """
        inputs = self.processed(clip)
        ids: Tensor = inputs["input_ids"][0]
        slots = (ids == self.visual_token_id).nonzero()[:, 0]
        n_prefix = int(slots[-1]) + 1 if len(slots) else 0
        pixels = {name: inputs[name] for name in self.vision_inputs}
        grid, vision_grid = self.grids(pixels, clip)
        if len(slots) != grid.n_tokens + self.n_unplaced:
            raise UserError(
                f"The processor of {self.name} writes {len(slots)} visual tokens where {self.family} has "
                f"{grid.n_tokens + self.n_unplaced}: this checkpoint is not supported; use another of the family."
            )
        positions, next_position = self.positions(inputs, n_prefix)
        return Prefix(
            input_ids=ids[None, :n_prefix],
            pixels=pixels,
            visual_positions=slots[: grid.n_tokens],
            placeholders=slots,
            grid=grid,
            vision_grid=vision_grid,
            position_ids=positions,
            next_position=next_position,
            blocks=self.blocks(ids[:n_prefix]),
        )

    def grid(self, prefix: Prefix, site: str) -> TokenGrid:
        """Where the tokens at a site lie: all sites but those of the vision tower share one grid."""
        if self.site(site).kind != "vision":
            return prefix.grid
        assert prefix.vision_grid is not None, "a prefix from `prefix` has it"
        return prefix.vision_grid

    def max_visual_tokens(self, n_frames: int) -> int:
        """Most visual tokens that a clip of so many frames can have, whatever its size."""
        return self.prefix(blank_clip(n_frames)).grid.n_tokens

    def max_tokens(self, n_frames: int, site: str) -> int:
        """Most tokens at a site that a clip of so many frames can have, whatever its size."""
        visual = self.max_visual_tokens(n_frames)
        if self.site(site).kind != "vision":
            return visual
        prefix = self.prefix(blank_clip(n_frames))
        # How many tokens of the tower become one visual token does not depend on the size of the frames.
        return math.ceil(visual * self.grid(prefix, site).n_tokens / prefix.grid.n_tokens)

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the visual tokens for one user text, up to where the model's answer begins.

        Raises:
            UserError: prefix and suffix together are not what the processor makes of the whole chat (checked once).
        """
        suffix = self._chat.suffix(question)
        if not self._is_chat_checked:
            clip = blank_clip(n_frames=2)
            whole: Tensor = self.processed(clip, question)["input_ids"][0]
            if not torch.equal(whole, torch.cat([self.prefix(clip).input_ids[0], suffix])):
                raise UserError(
                    f"The processor of {self.name} tokenises a chat otherwise than prefix and suffix together: "
                    "this checkpoint's processor is not supported; use another checkpoint of the family."
                )
            self._is_chat_checked = True
        return suffix
