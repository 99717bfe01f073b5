"""Moments of the activations at a site, gathered as they are stored: mean, second moment and median norm.

They are kept with every commit, so a resumed run ends with the same numbers, to the last bit, as an uninterrupted one.
The median of the norms comes from a histogram with bins of half a per cent and is exact to that.
"""

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from collect.artefact.json_fields import Fields

BINS_PER_OCTAVE = 128
FIRST_OCTAVE = -24
N_OCTAVES = 64
BLOCK_ROWS = 256
"""Rows whose sums are taken in float32; the sums of these are float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Moments of the activations [token, d_in] at one site."""

    n: int
    """Number of tokens."""
    mean: Float64[np.ndarray, " d_in"]
    second_moment: Float64[np.ndarray, " d_in"]
    """Mean of the squared activation per channel."""
    median_norm: float
    """Median Euclidean norm of a token's activation."""


class RunningMoments:
    """Sums from which `Moments` are computed, exact to float32's rounding over a block of rows.

    Args:
        d_in: width of the activations.
    """

    def __init__(self, d_in: int) -> None:
        self.n = 0
        self.total: Float64[np.ndarray, " d_in"] = np.zeros(d_in)
        self.squares: Float64[np.ndarray, " d_in"] = np.zeros(d_in)
        self.norms: Int64[np.ndarray, " bin"] = np.zeros(N_OCTAVES * BINS_PER_OCTAVE, dtype=np.int64)

    def add(self, rows: Float[Tensor, "token d_in"]) -> None:
        """Take in more tokens."""
        for block in rows.split(BLOCK_ROWS):
            values = block.to(torch.float32)
            squared = values.square()
            if not bool(torch.isfinite(squared.sum())):  # squares beyond float32
                values = block.to(torch.float64)
                squared = values.square()
            self.total += values.sum(dim=0).to(torch.float64).numpy()
            self.squares += squared.sum(dim=0).to(torch.float64).numpy()
            norms = squared.sum(dim=1).to(torch.float64).sqrt().numpy()
            self.norms += np.bincount(_bins(norms), minlength=len(self.norms))
        self.n += len(rows)

    def merge(self, other: "RunningMoments") -> None:
        """Take in the sums of other tokens."""
        self.n += other.n
        self.total += other.total
        self.squares += other.squares
        self.norms += other.norms

    def result(self) -> Moments:
        """The moments of all tokens so far; there must be at least one."""
        assert self.n > 0, "no token was stored"
        return Moments(
            n=self.n,
            mean=self.total / self.n,
            second_moment=self.squares / self.n,
            median_norm=_median(self.norms),
        )

    def to_json(self) -> dict[str, Any]:
        """Sums as base64 of little-endian float64, and the bins of the histogram that are not empty."""
        (used,) = np.nonzero(self.norms)
        return {
            "n": self.n,
            "sum": _pack(self.total),
            "sum_of_squares": _pack(self.squares),
            "norm_bins": used.tolist(),
            "norm_counts": self.norms[used].tolist(),
        }

    @classmethod
    def from_fields(cls, fields: Fields, d_in: int) -> "RunningMoments":
        """Rebuild from what `to_json` gave, to the last bit, as it was read from a file.

        Args:
            fields: what was read.
            d_in: width that the sums should have.

        Raises:
            UserError: a field is missing, or is not what `to_json` writes.
        """
        running = cls(d_in)
        running.n = fields.count("n")
        running.total, running.squares = (_unpack(fields, name, d_in) for name in ("sum", "sum_of_squares"))
        if (running.squares < 0).any():
            raise fields.error("sum_of_squares", "sums of squares")
        bins, counts = (fields.array(name, dtype=np.int64) for name in ("norm_bins", "norm_counts"))
        if len(bins) and (bins[0] < 0 or bins[-1] >= len(running.norms) or (np.diff(bins) <= 0).any()):
            raise fields.error("norm_bins", f"numbers of bins below {len(running.norms)}, ascending")
        if len(counts) != len(bins) or (counts <= 0).any() or sum(counts.tolist()) != running.n:
            raise fields.error("norm_counts", f"the {running.n} rows divided over the bins")
        running.norms[bins] = counts
        return running


def _bins(norms: Float64[np.ndarray, " token"]) -> Int64[np.ndarray, " token"]:
    octaves = np.log2(np.maximum(norms, 2.0**FIRST_OCTAVE)) - FIRST_OCTAVE
    return np.minimum((octaves * BINS_PER_OCTAVE).astype(np.int64), N_OCTAVES * BINS_PER_OCTAVE - 1)


def _median(counts: Int64[np.ndarray, " bin"]) -> float:
    """Median of a histogram, interpolated geometrically within its bin."""
    below = np.cumsum(counts)
    half = below[-1] / 2
    i = int(np.searchsorted(below, half))
    within = (half - (below[i] - counts[i])) / counts[i]
    return math.exp2(FIRST_OCTAVE + (i + float(within)) / BINS_PER_OCTAVE)


def _pack(values: Float64[np.ndarray, " d_in"]) -> str:
    return base64.b64encode(values.astype("<f8").tobytes()).decode("ascii")


def _unpack(fields: Fields, name: str, d_in: int) -> Float64[np.ndarray, " d_in"]:
    try:
        data = base64.b64decode(fields.text(name), validate=True)
    except ValueError:
        data = b""
    values = np.frombuffer(data[: len(data) // 8 * 8], dtype="<f8").astype(np.float64)
    if len(data) != 8 * d_in or not np.isfinite(values).all():
        raise fields.error(name, f"{d_in} finite numbers, as base64 of their float64")
    return values
