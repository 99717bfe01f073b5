"""Sparse codes of every stored token: writing them from a store and an SAE, and reading them back.

`codes.zarr` is a compressed sparse row matrix [token, latent] in the order of the store: `indptr` int64 [n_tokens + 1],
`indices` int32 [nonzero] and `values` float32 [nonzero], ascending by latent within a token.

It is written beside its final name and renamed when complete. After every block the number of finished tokens goes to
a progress file, and a rerun goes on from there; what lies beyond it is written again.
"""

from __future__ import annotations

import bisect
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float32, Int64
from scipy import sparse
from tqdm import tqdm
from zarr.codecs import Crc32cCodec

from collect.artefact import write_atomic
from collect.errors import UserError
from collect.store import ActivationStore
from train_sae.sae import Sae

log = logging.getLogger(__name__)

CHUNK = 1 << 18
PROGRESS_NAME = "progress.json"
BLOCK_TOKENS = 1 << 16
"""Tokens that a pass over the codes holds at once."""


def encode_store(store: ActivationStore, sae: Sae, folder: Path, *, batch_size: int, device: torch.device) -> Codes:
    """Encode all tokens of the SAE's site and write the codes.

    Args:
        store: activations, read in order.
        sae: encodes raw residuals.
        folder: `codes.zarr`; left alone if it is there.
        batch_size: tokens encoded at once; a sequential SAE encodes one whole video at once.
        device: where to encode.
    """
    if folder.exists():
        log.info("%s is complete.", folder)
        return Codes.open(folder)
    partial = folder.with_name(folder.name + ".partial")
    progress = _read_progress(partial / PROGRESS_NAME)
    if progress["n_tokens"]:
        log.info("%s: going on at token %d of %d.", folder, progress["n_tokens"], store.n_tokens)
    group = zarr.open_group(partial, mode="a") if progress["n_tokens"] else _create(partial, store, sae)
    indptr, indices, values = (_array(group, name) for name in ("indptr", "indices", "values"))
    sae = sae.to(device)
    ends = [video.row_stop for video in store.videos] if sae.is_sequential else []
    start, n_nonzeros = progress["n_tokens"], progress["n_nonzeros"]
    with tqdm(total=store.n_tokens, initial=start, unit="tokens", unit_scale=True, desc="encode") as bar:
        while start < store.n_tokens:
            stop = ends[bisect.bisect(ends, start)] if ends else min(start + batch_size, store.n_tokens)
            codes = encode_tokens(sae, store.read(sae.site, start, stop).to(device))
            end = n_nonzeros + codes.nnz
            for array, data in ((indices, codes.indices), (values, codes.data)):
                array.resize((end,))
                array[n_nonzeros:end] = data
            indptr[start + 1 : stop + 1] = n_nonzeros + codes.indptr[1:].astype(np.int64)
            bar.update(stop - start)
            start, n_nonzeros = stop, end
            write_atomic(partial / PROGRESS_NAME, json.dumps({"n_tokens": start, "n_nonzeros": n_nonzeros}))
    (partial / PROGRESS_NAME).unlink()
    partial.rename(folder)
    return Codes.open(folder)


def encode_tokens(sae: Sae, x: torch.Tensor) -> sparse.csr_array:
    """Latent activations of raw residuals x [token, d_in] as a matrix [token, latent] with sorted indices."""
    indices, values, pointers = sae.encode_sparse(x.float())
    codes = sparse.csr_array(
        (
            values.detach().float().cpu().numpy(),
            indices.cpu().numpy().astype(np.int32),
            pointers.cpu().numpy().astype(np.int64),
        ),
        shape=(len(x), sae.d_sae),
    )
    codes.eliminate_zeros()
    codes.sort_indices()
    return codes


class Codes:
    """Reader of `codes.zarr`."""

    def __init__(self, group: zarr.Group) -> None:
        self._indptr = _array(group, "indptr")
        self._indices = _array(group, "indices")
        self._values = _array(group, "values")
        self.attributes: dict[str, Any] = dict(group.attrs)
        self.n_tokens = int(self._indptr.shape[0]) - 1
        self.d_sae = int(self.attributes["d_sae"])

    @classmethod
    def open(cls, folder: Path) -> Codes:
        """Open finished codes.

        Raises:
            UserError: there are none.
        """
        if not (folder / "zarr.json").exists():
            raise UserError(f"{folder} does not exist or is incomplete: run `video-sae features` first.")
        return cls(zarr.open_group(folder, mode="r"))

    @property
    def n_nonzeros(self) -> int:
        """Number of stored activations."""
        return int(self._values.shape[0])

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        """Codes [token, latent] of the tokens [start, stop) of the store, float32."""
        pointers = np.asarray(self._indptr[start : stop + 1])
        first, last = int(pointers[0]), int(pointers[-1])
        indices, values = np.asarray(self._indices[first:last]), np.asarray(self._values[first:last])
        return sparse.csr_array((values, indices, pointers - first), shape=(stop - start, self.d_sae))

    def blocks(self, n_tokens: int = BLOCK_TOKENS) -> Iterator[tuple[int, sparse.csr_array]]:
        """All codes in order, as (first token, codes of up to `n_tokens` tokens)."""
        for start in range(0, self.n_tokens, n_tokens):
            yield start, self.rows(start, min(start + n_tokens, self.n_tokens))

    def columns(self, latents: Int64[np.ndarray, " latent"]) -> sparse.csr_array:
        """Codes [token, len(latents)] of some latents over all tokens; reads everything once."""
        if len(latents) == self.d_sae and (latents == np.arange(self.d_sae)).all():
            return self.rows(0, self.n_tokens)
        parts = [block[:, latents] for _, block in self.blocks()]
        return sparse.csr_array(sparse.vstack(parts, format="csr"))

    def column(self, latent: int) -> tuple[Int64[np.ndarray, " nonzero"], Float32[np.ndarray, " nonzero"]]:
        """Tokens at which one latent is active, ascending, and its activations there."""
        column = self.columns(np.array([latent])).tocoo()
        return column.row.astype(np.int64), column.data


def _create(partial: Path, store: ActivationStore, sae: Sae) -> zarr.Group:
    group = zarr.open_group(partial, mode="w")
    group.attrs.update({"d_sae": sae.d_sae, "site": sae.site})
    sizes = {"indptr": (store.n_tokens + 1, "int64"), "indices": (0, "int32"), "values": (0, "float32")}
    for name, (length, dtype) in sizes.items():
        group.create_array(name, shape=(length,), dtype=dtype, chunks=(CHUNK,), compressors=[Crc32cCodec()])
    return group


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array), f"{name} is an array"
    return array


def _read_progress(path: Path) -> dict[str, int]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"n_tokens": 0, "n_nonzeros": 0}
