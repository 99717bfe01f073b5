"""Latents near a latent: by decoder direction, and by the tokens at which both fire."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32
from scipy import sparse

from browse.gathering.opened import OpenedSae
from browse.gathering.rounding import rounded

N_NEIGHBOURS = 8
MOST_TOKENS = 1 << 18
"""Tokens that co-firing is counted on: all of them, or those of evenly spaced videos."""


class Neighbours:
    """Neighbours of the latents of one SAE.

    Args:
        sae: the SAE.
    """

    def __init__(self, sae: OpenedSae) -> None:
        self._sae = sae
        self._unit = None if sae.decoder is None else unit_rows(sae.decoder)
        self._firing = _firing(sae)
        self._n = np.diff(self._firing.tocsc().indptr)
        self._by_latent = self._firing.tocsc()

    def by_decoder(self, latents: range) -> list[list[dict[str, Any]]]:
        """Per latent, those with the nearest decoder directions."""
        if self._unit is None:
            return [[] for _ in latents]
        cosine = self._unit[latents.start : latents.stop] @ self._unit.T
        return [
            [{"latent": int(other), "cosine": rounded(line[other], 4)} for other in _highest(line, latent)]
            for latent, line in zip(latents, cosine, strict=True)
        ]

    def by_cofiring(self, latents: range) -> list[list[dict[str, Any]]]:
        """Per latent, those with the highest Jaccard index: tokens at which both fire, over those at which one does."""
        both = (self._by_latent[:, latents.start : latents.stop].T @ self._firing).tocsr()
        found: list[list[dict[str, Any]]] = []
        for place, latent in enumerate(latents):
            own = slice(int(both.indptr[place]), int(both.indptr[place + 1]))
            others, counts = both.indices[own].astype(np.int64), both.data[own]
            jaccard = counts / (self._n[latent] + self._n[others] - counts)
            best = [index for index in np.lexsort((others, -jaccard)) if others[index] != latent][:N_NEIGHBOURS]
            found.append(
                [
                    {"latent": int(others[index]), "jaccard": rounded(jaccard[index], 4), "n": int(counts[index])}
                    for index in best
                ]
            )
        return found


def unit_rows(rows: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]:
    """Rows of norm 1; a row of zeros stays one."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12).astype(np.float32)


def _firing(sae: OpenedSae) -> sparse.csr_array:
    """Where latents fire, as int32 [token, latent] of ones, on as many tokens as are counted."""
    videos = sae.run.videos
    n_tokens = sae.codes.n_tokens
    n = len(videos) if n_tokens <= MOST_TOKENS else max(1, len(videos) * MOST_TOKENS // n_tokens)
    chosen = np.unique(np.linspace(0, len(videos) - 1, n).round().astype(int)) if videos else np.empty(0, dtype=int)
    if len(chosen) == len(videos):
        rows = sae.codes.rows(0, n_tokens)
    else:
        parts = [sae.codes.rows(videos[index].row_start, videos[index].row_stop) for index in chosen.tolist()]
        rows = sparse.csr_array(sparse.vstack(parts, format="csr"))
    return sparse.csr_array((np.ones(len(rows.data), dtype=np.int32), rows.indices, rows.indptr), shape=rows.shape)


def _highest(line: Float32[np.ndarray, " latent"], but: int) -> list[int]:
    """The places of the highest values but one, ties to the lower place."""
    n = min(N_NEIGHBOURS + 1, len(line))
    some = np.argpartition(-line, n - 1)[:n] if n else np.empty(0, dtype=np.int64)
    order = some[np.lexsort((some, -line[some]))]
    return [int(other) for other in order if other != but][:N_NEIGHBOURS]
