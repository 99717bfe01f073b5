"""What a direction that was never trained would score: raw residual dimensions and random projections.

A latent fires rarely and strongly, and a score may come from that alone. So each control direction is read like a
latent: the projection minus a threshold, cut at zero, with the threshold at the quantile that gives it the firing rate
of the latents it is compared with. Firing rates are matched in a few bins.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy import sparse
from torch import Tensor
from tqdm import tqdm

from collect.reading import ActivationStore
from features.association.selection import score_some
from features.association.split_units import SplitUnits
from features.codes import Codes
from features.division import ALONE, Division, blocks_of

N_RATES = 4
MAX_NONZEROS = 1 << 19
"""Activations of the controls that are scored at once for all labels, which takes about a kilobyte each."""
QUANTILE_TOKENS = 16384
"""Tokens, drawn at random, from which thresholds are set."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Sparse codes of control directions at several firing rates."""

    codes: sparse.csr_array
    """[token, control]."""
    bin: Int64[np.ndarray, " control"]
    """Firing-rate bin of each control."""
    rates: Float64[np.ndarray, " bin"]
    """Firing rate of each bin, ascending."""

    def bin_of(self, firing_rate: Float64[np.ndarray, " latent"]) -> Int64[np.ndarray, " latent"]:
        """Bin with the nearest rate, in ratio."""
        distance = np.abs(np.log(np.maximum(firing_rate, 1e-12))[:, None] - np.log(self.rates)[None, :])
        return distance.argmin(axis=1).astype(np.int64)

    def score(self, spaces: Sequence[SplitUnits], division: Division = ALONE) -> Float64[np.ndarray, "control label"]:
        """AUROC of all controls for all labels of some spaces; each is scored by the process whose share it is in."""
        codes = sparse.csc_array(self.codes)
        n_active = np.diff(codes.indptr).astype(np.int64)
        own = division.share_by_cost(n_active)
        parts = [np.empty((0, sum(units.n_labels for units in spaces)))]
        for block in blocks_of(n_active[own.start : own.stop], MAX_NONZEROS):
            some = sparse.csc_array(codes[:, own.start + block.start : own.start + block.stop])
            parts.append(score_some(some, spaces))
        return division.join(np.concatenate(parts))


def matched_rates(firing_rate: Float64[np.ndarray, " latent"]) -> Float64[np.ndarray, " bin"]:
    """Firing rates in the middle of equally filled bins of the latents that fire at all."""
    live = firing_rate[(firing_rate > 0) & (firing_rate < 1)]
    if not len(live):
        return np.array([0.01])
    return np.unique(np.quantile(live, (np.arange(N_RATES) + 0.5) / N_RATES))


def control_directions(d_in: int, n: int, rng: np.random.Generator) -> Float[Tensor, "d_in direction"]:
    """Unit directions: half single dimensions of random sign, the rest isotropic random ones."""
    n_raw = min(n // 2, 2 * d_in)
    raw = torch.zeros(d_in, n_raw)
    picks = rng.choice(2 * d_in, size=n_raw, replace=False)  # each dimension once in either sign
    sign = torch.from_numpy(np.where(picks < d_in, 1.0, -1.0)).float()
    raw[torch.from_numpy(picks % d_in), torch.arange(n_raw)] = sign
    random = torch.from_numpy(rng.standard_normal((d_in, n - n_raw))).float()
    return torch.cat([raw, random / random.norm(dim=0)], dim=1)


def encode_controls(
    store: ActivationStore,
    site: str,
    firing_rate: Float64[np.ndarray, " latent"],
    *,
    n: int,
    rng: np.random.Generator,
    batch_size: int,
    division: Division = ALONE,
) -> Controls:
    """Read `n` control directions at each of a few firing rates over all tokens of a site.

    The processes of a division share the batches, and each gets the result. Batches are cut at the same tokens whoever
    reads them, so that it is the same.
    """
    rates = matched_rates(firing_rate)
    directions = control_directions(store.d_in(site), n, rng)
    sample = np.sort(rng.choice(store.n_tokens, size=min(store.n_tokens, QUANTILE_TOKENS), replace=False))
    batches = list(itertools.pairwise([*range(0, store.n_tokens, batch_size), store.n_tokens]))
    share = division.share(len(batches))
    own = batches[share.start : share.stop]
    thresholds = _thresholds(store, site, directions, rates, sample, own, division)
    parts = [sparse.csr_array((0, n * len(rates)), dtype=np.float32)]
    with tqdm(total=sum(stop - start for start, stop in own), unit="tokens", unit_scale=True, desc="controls") as bar:
        for start, stop in own:
            projected = store.read(site, start, stop).float() @ directions
            above = (projected[:, None, :] - thresholds).clamp(min=0).flatten(1)
            parts.append(sparse.csr_array(above.numpy()))
            bar.update(stop - start)
    return Controls(
        codes=_joined(sparse.csr_array(sparse.vstack(parts, format="csr")), division),
        bin=np.repeat(np.arange(len(rates), dtype=np.int64), n),
        rates=rates,
    )


def _joined(codes: sparse.csr_array, division: Division) -> sparse.csr_array:
    """The rows of all processes."""
    if division.n == 1:
        return codes
    sizes = division.join(np.diff(codes.indptr).astype(np.int64))
    ends = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    parts = division.join(codes.data), division.join(codes.indices), ends
    return sparse.csr_array(parts, shape=(len(ends) - 1, codes.shape[1]))


def latents_as_controls(
    codes: Codes,
    firing_rate: Float64[np.ndarray, " latent"],
    rates: Float64[np.ndarray, " bin"],
    *,
    n: int,
    rng: np.random.Generator,
) -> Controls:
    """Latents of another SAE in the place of control directions: up to `n` drawn of those that fire at about each rate.

    Args:
        codes: of the other SAE.
        firing_rate: of its latents.
        rates: firing rates of the bins.
        n: latents per bin.
        rng: draws them.
    """
    live = np.flatnonzero(firing_rate > 0)
    nearest = np.abs(np.log(firing_rate[live])[:, None] - np.log(rates)[None, :]).argmin(axis=1)
    drawn: list[Int64[np.ndarray, " latent"]] = []
    for index in range(len(rates)):
        own = live[nearest == index]
        drawn.append(np.sort(rng.choice(own, size=min(n, len(own)), replace=False)).astype(np.int64))
    return Controls(
        codes=codes.columns(np.concatenate(drawn)),
        bin=np.repeat(np.arange(len(rates), dtype=np.int64), [len(own) for own in drawn]),
        rates=rates,
    )


def _thresholds(
    store: ActivationStore,
    site: str,
    directions: Float[Tensor, "d_in direction"],
    rates: Float64[np.ndarray, " bin"],
    sample: Int64[np.ndarray, " token"],
    own: Sequence[tuple[int, int]],
    division: Division,
) -> Float[Tensor, "bin direction"]:
    """The quantiles of the projections of some tokens, of which each process reads those in its own batches."""
    projected = [np.empty((0, directions.shape[1]), dtype=np.float32)]
    for start, stop in own:
        picks = sample[(sample >= start) & (sample < stop)] - start
        if len(picks):
            projected.append((store.read(site, start, stop)[torch.from_numpy(picks)].float() @ directions).numpy())
    return torch.from_numpy(np.quantile(division.join(np.concatenate(projected)), 1 - rates, axis=0)).float()
