"""What a decoder direction writes into the model's vocabulary, beside what random directions write."""

from __future__ import annotations

import threading
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.rounding import all_rounded, rounded
from collect.artefact.run_data import model_of_run
from collect.errors import UserError
from collect.vlm.unembedding import Unembedding, read_unembedding

N_TOKENS = 10
"""Tokens that are shown at each end."""
N_RANDOM = 256
"""Random directions whose best token's logit is shown beside."""
BAND = (0.05, 0.95)
"""Quantiles of these."""
SITES = ("resid/", "resid_pre/")
"""Beginnings of the names of sites in the residual stream, where the unembedding reads."""


class Vocabulary:
    """The model's unembedding, read when it is first needed.

    Args:
        run: the run whose model it is.
    """

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._read: Unembedding | str | None = None
        self._band: list[float | None] | None = None

    def words(self, sae: OpenedSae, latents: range) -> list[dict[str, Any]]:
        """Per latent the tokens with the highest and the lowest logits, or why there are none."""
        why = self._why_not(sae)
        unembedding, decoder = self._unembedding(), sae.decoder
        if why is not None or isinstance(unembedding, str) or decoder is None:
            reason = why or (unembedding if isinstance(unembedding, str) else "the SAE is no longer there")
            return [{"available": False, "why": reason, "top": [], "bottom": [], "random_top": None} for _ in latents]
        logits = unembedding.logits(torch.from_numpy(decoder[latents.start : latents.stop]))
        n = min(N_TOKENS, logits.shape[1])
        highest, lowest = logits.topk(n, dim=1), (-logits).topk(n, dim=1)
        band = self._random_band(unembedding)
        return [
            {
                "available": True,
                "why": None,
                "top": _listed(unembedding, highest.indices[place], highest.values[place]),
                "bottom": _listed(unembedding, lowest.indices[place], -lowest.values[place]),
                "random_top": band,
            }
            for place in range(len(latents))
        ]

    def _why_not(self, sae: OpenedSae) -> str | None:
        site = sae.codes.attributes.get("site")
        if not isinstance(site, str) or not site.startswith(SITES):
            return "the site is not in the language model's residual stream, which the unembedding reads"
        unembedding, decoder = self._unembedding(), sae.decoder
        if isinstance(unembedding, Unembedding) and decoder is not None and decoder.shape[1] != unembedding.d_model:
            return "the decoder directions are not as wide as the model's residual stream"
        return None

    def _unembedding(self) -> Unembedding | str:
        with self._lock:
            if self._read is None:
                try:
                    self._read = read_unembedding(model_of_run(self._run.folder))
                except UserError as error:
                    self._read = str(error)
            return self._read

    def _random_band(self, unembedding: Unembedding) -> list[float | None]:
        """Between which logits the best token of most random directions lies."""
        if self._band is None:
            generator = torch.Generator().manual_seed(0)
            best = unembedding.logits(torch.randn(N_RANDOM, unembedding.d_model, generator=generator)).amax(dim=1)
            self._band = all_rounded(torch.quantile(best, torch.tensor(BAND)).tolist(), 4)
        return self._band


def _listed(
    unembedding: Unembedding, tokens: Int[Tensor, " token"], logits: Float[Tensor, " token"]
) -> list[dict[str, Any]]:
    texts = unembedding.texts(tokens)
    return [{"token": text, "logit": rounded(logit, 4)} for text, logit in zip(texts, logits.tolist(), strict=True)]
