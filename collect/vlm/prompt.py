"""A prompt in its stages: a clip's prefix, the projector's output for it, whole prompts as embeddings."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from collect.tokens.grid import TokenGrid


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """One clip as the model's prompt sees it, up to and including the last placeholder of a visual feature."""

    input_ids: Int64[Tensor, "1 n_prefix"]
    pixels: Mapping[str, Tensor]
    """Inputs of the vision tower by the names that the processor gives them; empty once `features` is set."""
    visual_positions: Int64[Tensor, " visual"]
    """Where the visual tokens are; not necessarily contiguous."""
    grid: TokenGrid
    """Where the visual tokens lie in the video."""
    vision_grid: TokenGrid | None = None
    """Where the vision tower's own tokens lie, before the projector merges them."""
    newline_positions: Int64[Tensor, " newline"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Where learned newlines are. The projector makes these too, but they have no place in the video; LLaVA-OneVision
    puts one after the last frame."""
    position_ids: Int64[Tensor, "axis n_prefix"] | None = None
    """Positions for the rotary embedding; None if they count from 0 along one axis."""
    next_position: int | None = None
    """Position of the first token after the prefix, on every axis; None for the number of tokens."""
    blocks: Int64[Tensor, " n_prefix"] | None = None
    """Number of the block in which a token sees every other one, -1 outside blocks; None in a causal model."""
    features: Float[Tensor, "feature d_model"] | None = None
    """Output of the projector, if it has been computed (`VideoVlm.with_features`)."""
    deepstack: Float[Tensor, "deepstack visual d_model"] | None = None
    """What is added to the visual tokens after the first decoder layers, computed together with `features`."""

    @property
    def feature_positions(self) -> Int64[Tensor, " feature"]:
        """Positions that the projector's features go to: visual tokens, then newlines."""
        return torch.cat([self.visual_positions, self.newline_positions])

    @cached_property
    def layout(self) -> Hashable:
        """Equal for prefixes that may share a batch: tokens at the same places, frames of one size."""
        return (
            self.input_ids.shape[1],
            (self.grid.n_t, self.grid.n_rows, self.grid.n_cols),
            tuple(self.feature_positions.tolist()),
            tuple((name, tuple(x.shape)) for name, x in self.pixels.items()),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Projected:
    """What the vision side of a model makes of clips, one clip after another along any number of axes."""

    features: Float[Tensor, "*rows d_model"]
    deepstack: Float[Tensor, "deepstack *rows d_model"] | None = None
    """What is added to the visual tokens after decoder layer 0, 1, … (DeepStack); None in most families."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """A batch of whole prompts as input embeddings, right-padded; all have their visual tokens at the same places."""

    inputs_embeds: Float[Tensor, "batch token d_model"]
    attention_mask: Bool[Tensor, "batch token"]
    position_ids: Int64[Tensor, "*axes batch token"]
    """One position per token, or one on each of several axes."""
    visual_positions: Int64[Tensor, " visual"]
    last: Int64[Tensor, " batch"]
    """Index of each prompt's last real token, whose logits answer the question."""
    blocks: Int64[Tensor, " token"] | None = None
    """As in `Prefix`, and -1 after the prefix."""
    deepstack: Float[Tensor, "deepstack batch visual d_model"] | None = None
    """As in `Prefix`."""


def prompt_positions(prefix: Prefix, n_tokens: int) -> Int64[Tensor, "axis n_tokens"]:
    """Positions of a prefix and of the text that follows it, `n_tokens` together."""
    n_prefix = prefix.input_ids.shape[1]
    own = prefix.position_ids if prefix.position_ids is not None else torch.arange(n_prefix)[None]
    start = n_prefix if prefix.next_position is None else prefix.next_position
    after = torch.arange(start, start + n_tokens - n_prefix)
    return torch.cat([own, after.expand(len(own), -1)], dim=1)
