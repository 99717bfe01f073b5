"""What is usual at the site: firing rates, activation values and residuals on a sample of the train videos' tokens.

Controls are matched to it and clamps take their values from it. It comes from the activation store, so no model runs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from collect.reading import ActivationStore
from steer.codes import VideoCodes
from train_sae.sae import Sae

MAX_TOKENS = 32_768
"""Tokens in the sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Statistics of a sample of tokens at the site."""

    sample: Float[Tensor, "token d_in"]
    codes: VideoCodes
    firing_rate: Float[Tensor, " d_sae"]
    mean_active: Float[Tensor, " d_sae"]
    """Mean activation over the tokens on which a latent fires; 0 for a latent that never does."""
    median_norm: float
    """Median norm of the residuals."""

    def quantile(self, latent: int, level: float) -> float:
        """Quantile of a latent's activations over the tokens on which it fires; 0 if it never does."""
        values = self.codes.value[self.codes.latent == latent]
        return float(torch.quantile(values, level)) if len(values) else 0.0


def reference(store: ActivationStore, site: str, sae: Sae, videos: Collection[str]) -> Reference:
    """Sample the tokens of some videos evenly and encode them.

    Args:
        store: the activations.
        site: the site that the SAE was trained on.
        sae: the SAE.
        videos: ids of the videos to sample from, the train videos.
    """
    records = [record for record in store.videos if record.video_id in videos]
    assert records, "no video of the store is a train video"
    n_tokens = sum(record.row_stop - record.row_start for record in records)
    stride = max(1, -(-n_tokens // MAX_TOKENS))
    # Reading whole videos in order and keeping every stride-th row samples all frames, rows and columns alike where
    # the stride has no factor in common with the grid; an odd stride has none with the usual powers of two.
    stride += stride > 1 and stride % 2 == 0
    samples, codes = list[Tensor](), list[VideoCodes]()
    for record in records:
        x = store.read(site, record.row_start, record.row_stop).float().to(sae.W_dec.device)
        samples.append(x[::stride])
        if sae.is_sequential:  # the tokens that are left out are what the others depend on
            codes.append(VideoCodes.of(sae, x).every(stride))
    sample = torch.cat(samples)
    return summarise(sample, sae, VideoCodes.joined(codes) if codes else None)


def summarise(sample: Float[Tensor, "token d_in"], sae: Sae, codes: VideoCodes | None = None) -> Reference:
    """Encode a sample, unless it comes with its codes, and count."""
    codes = codes or VideoCodes.of(sae, sample)
    count = torch.bincount(codes.latent, minlength=sae.d_sae)
    total = torch.bincount(codes.latent, weights=codes.value.double(), minlength=sae.d_sae)
    return Reference(
        sample=sample,
        codes=codes,
        firing_rate=(count / len(sample)).float(),
        mean_active=(total / count.clamp_min(1)).float(),
        median_norm=float(sample.norm(dim=1).median()),
    )
