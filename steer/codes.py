"""Sparse codes of a video's visual tokens, as interventions take them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ask.byte_cache import ByteCache
from ask.cases import Case, Cases
from collect.data.perception_test import Video
from collect.tokens.grid import TokenGrid
from train_sae.sae import Sae


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoCodes:
    """Latent activations of a video's visual tokens: the non-zeros, by token and latent."""

    token: Int[Tensor, " nonzero"]
    latent: Int[Tensor, " nonzero"]
    value: Float[Tensor, " nonzero"]
    n_tokens: int

    @classmethod
    def of(cls, sae: Sae, residuals: Float[Tensor, "token d_in"]) -> VideoCodes:
        """Encode residuals, of which those of a sequential SAE are one video's in order.

        Activations are in units of `sae.W_dec` in the residual: where an SAE normalises each token, its own activations
        are multiplied by what it divides the token by.
        """
        latent, value, pointers = sae.encode_sparse(residuals.float())
        counts = (pointers[1:] - pointers[:-1]).to(torch.int64)
        token = torch.repeat_interleave(torch.arange(len(residuals), device=counts.device), counts)
        if sae.token_norm != "none":
            value = value * sae.written_per_unit(residuals)[token]
        return cls(token=token, latent=latent.to(torch.int64), value=value, n_tokens=len(residuals))

    def every(self, stride: int) -> VideoCodes:
        """Those of every `stride`-th token."""
        kept = self.token % stride == 0
        return VideoCodes(
            token=self.token[kept] // stride,
            latent=self.latent[kept],
            value=self.value[kept],
            n_tokens=-(-self.n_tokens // stride),
        )

    @classmethod
    def joined(cls, parts: Sequence[VideoCodes]) -> VideoCodes:
        """Those of several lots of tokens, one lot behind the other."""
        starts = itertools.accumulate((part.n_tokens for part in parts), initial=0)
        return cls(
            token=torch.cat([part.token + start for part, start in zip(parts, starts, strict=False)]),
            latent=torch.cat([part.latent for part in parts]),
            value=torch.cat([part.value for part in parts]),
            n_tokens=sum(part.n_tokens for part in parts),
        )

    def columns(self, latents: Sequence[int]) -> Float[Tensor, "token latent"]:
        """Activations of some latents on every visual token."""
        dense = torch.zeros(self.n_tokens, len(latents), device=self.value.device)
        for place, latent in enumerate(latents):
            found = self.latent == latent
            dense[self.token[found], place] = self.value[found]
        return dense

    def at(self, tokens: Bool[Tensor, " token"]) -> VideoCodes:
        """Those at some tokens; all others are silent."""
        kept = tokens[self.token]
        return VideoCodes(
            token=self.token[kept], latent=self.latent[kept], value=self.value[kept], n_tokens=self.n_tokens
        )

    def fires(self, latents: Sequence[int]) -> bool:
        """Whether any of some latents fires on any visual token."""
        return bool(torch.isin(self.latent, torch.tensor(list(latents), device=self.latent.device)).any())


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What is known about a video besides its residuals."""

    video: Video
    """With its annotations."""
    grid: TokenGrid

    @property
    def n_patches(self) -> int:
        """Visual tokens of one time step."""
        return self.grid.n_rows * self.grid.n_cols

    @property
    def shape(self) -> tuple[int, int, int]:
        """Time steps, rows and columns; tokens of videos with one shape correspond."""
        return self.grid.n_t, self.grid.n_rows, self.grid.n_cols


class CodedCases:
    """A run's cases with the codes of their visual tokens, made when needed and kept while memory allows."""

    def __init__(self, cases: Cases, sae: Sae) -> None:
        """Keep none yet."""
        self.cases = cases
        self._sae = sae
        self._kept = ByteCache(self._build, lambda made: made[0].sequences.n_bytes + 20 * len(made[1].value))

    def __getitem__(self, video_id: str) -> tuple[Case, VideoCodes]:
        """Return a video's case and codes.

        Raises:
            UserError: the video cannot be decoded, or is not what the activations were collected from.
        """
        return self._kept[video_id]

    def _build(self, video_id: str) -> tuple[Case, VideoCodes]:
        case = self.cases.build(video_id)
        return case, VideoCodes.of(self._sae, case.sequences.visual)

    def scene(self, video_id: str) -> Scene:
        """What is known about a video besides its residuals."""
        return Scene(video=self.cases.annotated(video_id), grid=self.cases.grid(video_id))
