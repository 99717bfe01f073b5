"""Initial weights that let the small demo model learn quickly; docs/log.md says how much they help."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fan_in(module: nn.Module, write_gain: float = 1.0) -> None:
    """Start matrices at deviation 1/sqrt(fan-in), `write_gain` times that where they write into the residual stream.

    At the usual 0.02, what they write is lost next to residuals that grow to a norm of 30-70.
    """
    for name, weight in module.named_parameters():
        if weight.ndim == 2:
            gain = write_gain if "o_proj" in name or "down_proj" in name else 1.0
            nn.init.normal_(weight, std=gain / weight.shape[1] ** 0.5)


def whitening_patches(pixels: Tensor, patch_px: int, width: int) -> tuple[Tensor, Tensor]:
    """Weight [width, 3, P, P] and bias [width] of a patch embedding with uncorrelated outputs of variance 1.

    Args:
        pixels: normalised frames [N, 3, px, px].
        patch_px: P.
        width: number of leading principal components to keep.
    """
    patches = F.unfold(pixels, patch_px, stride=patch_px).transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(torch.cov(patches.T))
    weight = (directions[:, -width:] / variances[-width:].clamp_min(1e-6).sqrt()).T
    return weight.unflatten(1, (3, patch_px, patch_px)), -(weight @ patches.mean(0))


def grid_waves(grid: int, width: int) -> Tensor:
    """Sines and cosines of row and column, [grid², width]."""
    angles = torch.arange(grid)[:, None] * 30.0 ** -(torch.arange(width // 4) / (width // 4))
    line = torch.cat([angles.sin(), angles.cos()], 1)
    return torch.cat([line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)], -1).flatten(0, 1)
