"""A decoder's arguments: which tokens see each other, and what DeepStack adds to the visual ones."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn


def frame_blocks(is_visual: Bool[Tensor, " token"]) -> Int64[Tensor, " token"]:
    """Number the runs of visual tokens from 0; -1 for every other token."""
    begins = is_visual & ~nn.functional.pad(is_visual, (1, 0))[:-1]
    return torch.where(is_visual, begins.cumsum(0) - 1, -1)


def visible_in_blocks(
    allowed: Bool[Tensor, "token token"] | None, blocks: Int64[Tensor, " token"]
) -> Bool[Tensor, "token token"]:
    """Which key (column) each query (row) may see: what is allowed, and every token of its own block.

    Args:
        allowed: None if tokens see those before them.
        blocks: number of each token's block, -1 outside blocks.
    """
    n = len(blocks)
    causal = torch.ones(n, n, dtype=torch.bool, device=blocks.device).tril() if allowed is None else allowed
    return causal | ((blocks[:, None] == blocks[None, :]) & (blocks >= 0)[:, None])


def additive_mask(allowed: Bool[Tensor, "token token"], dtype: torch.dtype) -> Float[Tensor, "1 1 token token"]:
    """Zero where a query may see a key, the type's lowest number elsewhere."""
    zero = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zero.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]


def attention_mask(
    allowed: Bool[Tensor, "token token"],
    position_ids: Int64[Tensor, "*axes row token"],
    dtype: torch.dtype,
    sliding_window: int | None,
) -> Float[Tensor, "row 1 token token"] | dict[str, Float[Tensor, "row 1 token token"]]:
    """The decoder's argument for rows that all have one mask.

    Args:
        allowed: which key (column) each query (row) may see.
        position_ids: of the rows, which differ only in their right padding.
        dtype: of the residual stream.
        sliding_window: how many positions layers of transformers' kind `sliding_attention` see; None if there are no
            such layers.

    Returns:
        One mask, or one for each kind of layer.
    """
    n_rows = position_ids.shape[-2]
    whole = additive_mask(allowed, dtype).expand(n_rows, -1, -1, -1)
    if sliding_window is None:
        return whole
    positions = position_ids.flatten(0, -2)[0]
    near = positions[None, :] > positions[:, None] - sliding_window
    return {
        "full_attention": whole,
        "sliding_attention": additive_mask(allowed & near, dtype).expand(n_rows, -1, -1, -1),
    }


def deepstack_kwargs(
    deepstack: Float[Tensor, "deepstack row visual d_model"],
    visual_positions: Int64[Tensor, " visual"],
    n_tokens: int,
    layer: int,
) -> dict[str, Any]:
    """The decoder's arguments for DeepStack: what is still to be added to the visual tokens.

    Args:
        deepstack: what is added after decoder layer 0, 1, ….
        visual_positions: where the visual tokens are in every row.
        n_tokens: length of a row.
        layer: the first layer whose features are still to be added; those of earlier ones are in the residual.
    """
    is_visual = torch.zeros(deepstack.shape[1], n_tokens, dtype=torch.bool, device=visual_positions.device)
    is_visual[:, visual_positions] = True
    left = [x if i >= layer else torch.zeros_like(x) for i, x in enumerate(deepstack)]
    return {"visual_pos_masks": is_visual, "deepstack_visual_embeds": [x.flatten(0, 1) for x in left]}
