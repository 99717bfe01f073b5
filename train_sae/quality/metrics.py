"""How well SAEs reconstruct and how they use their latents, over a whole set of tokens.

Everything is accumulated over the set in float64 and divided at the end; no number is a mean of ratios per batch.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from train_sae.processes.group import SOLO, Group
from train_sae.processes.sharded_sae import decode_shares, encode_share
from train_sae.sae import Sae

DENSE_RATE = 0.1
HISTOGRAM_DECADES = 7
_COHERENCE_ROWS = 4096
_COHERENCE_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of an SAE on a set of tokens."""

    n_tokens: int
    fvu: float
    """Fraction of variance unexplained: Σ‖x − x_hat‖² / Σ‖x − mean(x)‖², with the mean of the set."""
    explained_variance: float
    """1 − FVU."""
    l0: float
    """Mean number of active latents per token."""
    n_dead: int
    """Latents that are active at no token of the set."""
    n_dense: int
    """Latents that are active at more than a tenth of the tokens."""
    cosine: float
    """Mean cosine between x and x_hat."""
    relative_bias: float
    """Mean ‖x_hat‖² / mean x·x_hat: below 1 if reconstructions shrink, 1 if they are unbiased."""
    firing_rate_histogram: tuple[int, ...]
    """Latents by firing rate: never; below 10⁻⁷; then a bin per half decade up to 1."""

    def to_json(self) -> dict[str, Any]:
        """The numbers by name; null if one is not defined, since JSON has no NaN."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in dataclasses.asdict(self).items()
        }


class QualityMeter:
    """Sums from which a `Quality` is computed.

    Args:
        sae: on the device that does the work; this process's share of it, if there are several.
        group: the processes that have the shares; each meters the same tokens.
    """

    def __init__(self, sae: Sae, group: Group = SOLO) -> None:
        self._sae, self._group = sae, group
        # About b_dec, which lies near the mean, so that the variance is not a difference of large numbers.
        self._centre = sae.b_dec.double()
        self._n_tokens, self._total = 0, torch.zeros_like(self._centre)
        self._fired = torch.zeros(sae.d_sae, dtype=torch.int64, device=self._centre.device)
        names = ("spread", "error", "cosine", "norm", "product")
        self._sums = {name: self._centre.new_zeros(()) for name in names}

    def add(self, chunk: Float[Tensor, "token d_in"]) -> None:
        """Encode and decode tokens and add the results to the sums.

        Args:
            chunk: raw residuals, on the SAE's device.
        """
        codes = encode_share(self._sae, chunk, self._group)
        x, x_hat = chunk.to(self._centre), decode_shares(self._sae, codes, chunk, self._group).double()
        self._n_tokens += x.shape[0]
        self._total += (x - self._centre).sum(0)
        self._fired += torch.bincount(codes.indices, minlength=self._sae.d_sae)
        for name, value in (
            ("spread", (x - self._centre).square().sum()),
            ("error", (x - x_hat).square().sum()),
            ("cosine", F.cosine_similarity(x, x_hat, dim=1).sum()),
            ("norm", x_hat.square().sum()),
            ("product", (x * x_hat).sum()),
        ):
            self._sums[name] += value

    def result(self) -> tuple[Quality, Float[Tensor, " d_sae"]]:
        """The quality on all tokens so far, and the firing rate of each latent (share of tokens), float64."""
        assert self._n_tokens, "there is at least one token to evaluate on"
        sums, n_tokens = self._sums, self._n_tokens
        variance = float(sums["spread"] - self._total.square().sum() / n_tokens)
        fvu = float(sums["error"]) / variance if variance > 0 else float("nan")
        fired = self._fired.cpu() if self._group.n_shards == 1 else torch.cat(self._group.gather(self._fired))
        rates = fired.double() / n_tokens
        quality = Quality(
            n_tokens=n_tokens,
            fvu=fvu,
            explained_variance=1 - fvu,
            l0=int(fired.sum()) / n_tokens,
            n_dead=int((fired == 0).sum()),
            n_dense=int((fired > DENSE_RATE * n_tokens).sum()),
            cosine=float(sums["cosine"]) / n_tokens,
            relative_bias=float(sums["norm"] / sums["product"]),
            firing_rate_histogram=firing_rate_histogram(rates),
        )
        return quality, rates


def evaluate(
    saes: Sequence[Sae], chunks: Iterable[Float[Tensor, "_ d_in"]], group: Group = SOLO
) -> list[tuple[Quality, Float[Tensor, " d_sae"]]]:
    """Quality and firing rates of several SAEs from one pass over the tokens.

    Args:
        saes: on one device, which does the work; this process's shares of them, if there are several.
        chunks: raw residuals, on any device; at least one token, and the same in every process.
        group: the processes that have the shares.
    """
    meters = [QualityMeter(sae, group) for sae in saes]
    for chunk in chunks:
        x = chunk.to(saes[0].b_dec.device)
        for meter in meters:
            meter.add(x)
    return [meter.result() for meter in meters]


def firing_rate_histogram(rates: Float[Tensor, " d_sae"]) -> tuple[int, ...]:
    """Count latents by firing rate: never, below 10⁻⁷, then a bin per half decade; a bin holds its lower edge.

    Args:
        rates: share of tokens at which each latent fires.
    """
    edges = 10.0 ** (torch.arange(2 * HISTOGRAM_DECADES + 1, dtype=torch.float64) / 2 - HISTOGRAM_DECADES)
    bins = torch.bucketize(rates[rates > 0].double(), edges[:-1], right=True)
    counts = torch.bincount(bins, minlength=len(edges)).tolist()
    return (int((rates == 0).sum()), *counts)


@dataclass(frozen=True, kw_only=True)
class Coherence:
    """How alike the decoder directions are."""

    decoder_coherence_mean: float
    """Mean over latents of the largest |cosine| with another decoder direction."""
    decoder_coherence_max: float
    """The largest of these."""


def decoder_coherence(directions: Float[Tensor, "d_sae d_in"]) -> Coherence:
    """Compare decoder directions with each other, a block of them at a time, never all pairs at once.

    Args:
        directions: one per latent, of any norm above zero. If there are more than 4096, 4096 evenly spaced ones are
            compared with all; a single one has no coherence.
    """
    unit = F.normalize(directions.float(), dim=1)
    d_sae = len(unit)
    chosen = torch.arange(d_sae, device=unit.device)
    if d_sae > _COHERENCE_ROWS:
        chosen = torch.linspace(0, d_sae - 1, _COHERENCE_ROWS, device=unit.device, dtype=torch.float64).long()
    largest: list[Tensor] = []
    for block in chosen.split(_COHERENCE_BLOCK):
        cosines = (unit[block] @ unit.T).abs_()
        cosines[torch.arange(len(block), device=unit.device), block] = 0
        largest.append(cosines.amax(1))
    values = torch.cat(largest).double().clamp(max=1.0)
    return Coherence(decoder_coherence_mean=float(values.mean()), decoder_coherence_max=float(values.max()))
