"""Losses of the demo model's training that are pure functions of tensors, with their masks and targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from demo.world.scene import SAMPLES


def attention_mask(block: Tensor, n_prefix: int) -> Tensor:
    """Bool [B, 1, L, L]: every block of text sees the prefix, and itself causally."""
    n_batch, n_text = block.shape
    length = n_prefix + n_text
    mask = torch.ones(length, length, dtype=torch.bool).tril().expand(n_batch, length, length).clone()
    mask[:, n_prefix:, n_prefix:] &= block[:, :, None] == block[:, None, :]
    return mask[:, None]


def label_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy summed over all labels, per positive label."""
    target = target.to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / target.sum().clamp_min(1)


def tracking_targets(grid: int, n_words: int) -> Tensor:
    """Where two heads of the early layers look, [2, V, L]: around the same cell in all earlier frames, in the last one.

    The first token of the sequence always has a share, so the weight left on it shows whether there is a frame.
    """
    token = torch.arange(SAMPLES * grid**2)
    frame, row, column = token // grid**2, token // grid % grid, token % grid
    near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    back = frame[:, None] - frame
    target = torch.zeros(2, len(token), n_words + len(token))
    target[..., 0] = 1.0
    target[..., n_words:] = torch.stack([near & (back > 0), near & (back == 1)])
    return target / target.sum(-1, keepdim=True)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding as transformers' Llama applies it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], -1) * sin


def log_attention(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Log attention [..., heads, L] of queries [..., heads, D] to keys [..., heads, L, D]; -inf where masked."""
    scores = torch.einsum("...hd,...hld->...hl", query, key) / query.shape[-1] ** 0.5
    return scores.masked_fill(~mask, float("-inf")).log_softmax(-1)


def divergence(target: Tensor, logs: Tensor, mask: Tensor) -> Tensor:
    """Mean KL divergence of attention from `target`, which is zero wherever the mask is."""
    entropy = -(target * target.clamp_min(1e-9).log()).sum(-1)
    return -(target * logs.masked_fill(~mask, 0.0)).sum(-1).mean() - entropy.mean()
