"""How large an SAE is whose training step is timed, and the activations that it is trained on."""

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

_N_BATCHES = 4


@dataclass(frozen=True)
class Size:
    """How large an SAE and its batches are."""

    d_in: int
    d_sae: int
    k: int
    batch_size: int
    rounds: int
    device: str = "cpu"


SIZES = {
    "small": Size(512, 4096, 16, 2048, rounds=9),
    "medium": Size(768, 12288, 32, 4096, rounds=3),
    "large": Size(2048, 16384, 64, 2048, rounds=2),
}
QUICK_SIZES = {"small": Size(128, 1024, 8, 1024, rounds=3)}
CUDA = Size(2048, 32768, 64, 8192, rounds=20, device="cuda")


@lru_cache(maxsize=1)
def batches(size: Size) -> list[Tensor]:
    """Activations with a planted dictionary: 2 k directions per token, and some noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(size.d_sae, size.d_in, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    found: list[Tensor] = []
    for _ in range(_N_BATCHES):
        active = torch.randint(size.d_sae, (size.batch_size, 2 * size.k), generator=generator)
        strengths = torch.rand(size.batch_size, 2 * size.k, generator=generator)
        x = F.embedding_bag(active, directions, per_sample_weights=strengths, mode="sum")
        found.append((x + 0.1 * torch.randn(x.shape, generator=generator)).to(size.device))
    return found
