"""Sparse codes of every stored token: writing them from a store and an SAE, and reading them back.

`codes.zarr` is a compressed sparse row matrix [token, latent] in the order of the store: `indptr` int64 [n_tokens + 1],
`indices` int32 [nonzero] and `values` float32 [nonzero], ascending by latent within a token.

It is written beside its final name, sealed (`features.codes_files`) and renamed when complete. After every block the
number of finished tokens goes to a progress file, and a rerun goes on from there; what lies beyond it is written again.
"""

from __future__ import annotations

import bisect
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Float32, Int32, Int64
from scipy import sparse
from tqdm import tqdm

from collect.artefact.folder import read_object, write_json
from collect.artefact.json_fields import Fields
from collect.errors import UserError
from collect.printable import printable
from collect.reading import ActivationStore
from features.codes_files import SEAL, check_seal, create_group, damaged, open_group, read_array, seal
from train_sae.sae import Sae

log = logging.getLogger(__name__)

PROGRESS_NAME = "progress.json"
BLOCK_TOKENS = 1 << 16
"""Tokens that a pass over the codes holds at once."""


def encode_store(
    store: ActivationStore,
    sae: Sae,
    folder: Path,
    *,
    batch_size: int,
    device: torch.device,
    name: str = "the SAE",
) -> Codes:
    """Encode all tokens of the SAE's site and write the codes.

    Args:
        store: activations, read in order.
        sae: encodes raw residuals.
        folder: `codes.zarr`; left alone if it is there and holds codes of this store and SAE for every token.
        batch_size: tokens encoded at once; a sequential SAE encodes one whole video at once.
        device: where to encode.
        name: what the SAE is called in messages.

    Raises:
        UserError: the SAE gives activations that are not finite, or codes that were begun are damaged.
    """
    if folder.exists():
        whole = _whole_codes(folder, store, sae)
        if whole is not None:
            log.info("%s is complete.", folder)
            return whole
        shutil.rmtree(folder)
    partial = folder.with_name(folder.name + ".partial")
    start = _read_progress(partial / PROGRESS_NAME)
    if start:
        log.info("%s: going on at token %d of %d.", folder, start, store.n_tokens)
        group, arrays, n_nonzeros = _resume(partial, store, sae, start)
    else:
        create_group(partial, store.n_tokens, {"d_sae": sae.d_sae, "site": sae.site})
        group, arrays = open_group(partial, "r+")
        n_nonzeros = 0
    sae = sae.to(device)
    ends = [video.row_stop for video in store.videos] if sae.is_sequential else []
    with tqdm(total=store.n_tokens, initial=start, unit="tokens", unit_scale=True, desc="encode") as bar:
        while start < store.n_tokens:
            stop = ends[bisect.bisect(ends, start)] if ends else min(start + batch_size, store.n_tokens)
            codes = encode_tokens(sae, store.read(sae.site, start, stop).to(device))
            if not np.isfinite(codes.data).all():  # finite weights can still be so large that their products are not
                latent = int(codes.indices[~np.isfinite(codes.data)][0])
                raise UserError(
                    f"{printable(name, 4096)} gives activations that are not finite, of latent {latent} for one: its "
                    "weights are too large for these residuals; restore it, train it again, or name another SAE."
                )
            end = n_nonzeros + codes.nnz
            for name, data in (("indices", codes.indices), ("values", codes.data)):
                arrays[name].resize((end,))
                arrays[name][n_nonzeros:end] = data
            arrays["indptr"][start + 1 : stop + 1] = n_nonzeros + codes.indptr[1:].astype(np.int64)
            bar.update(stop - start)
            start, n_nonzeros = stop, end
            write_json(partial / PROGRESS_NAME, {"n_tokens": start})
    seal(partial, group)
    (partial / PROGRESS_NAME).unlink()
    partial.rename(folder)
    return Codes.open(folder, n_tokens=store.n_tokens, d_sae=sae.d_sae)


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
    """Reader of `codes.zarr`.

    Whatever it gives was checked: offsets that rise, latents below `d_sae`, activations that are finite and above zero.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, zarr.Array[Any]], attributes: Mapping[str, Any]) -> None:
        self._folder = folder
        self._arrays = arrays
        self.attributes: dict[str, Any] = dict(attributes)
        self.n_tokens = int(arrays["indptr"].shape[0]) - 1
        self.d_sae = int(attributes["d_sae"])

    @classmethod
    def open(cls, folder: Path, *, n_tokens: int | None = None, d_sae: int | None = None) -> Codes:
        """Open finished codes, whose seal is checked; activations are checked as they are read.

        Args:
            folder: `codes.zarr`.
            n_tokens: tokens of the store that they have to be of; any where None.
            d_sae: latents of the SAE that they have to be of; any where None.

        Raises:
            UserError: there are none, they are damaged, or they are of another store or SAE.
        """
        attributes = check_seal(folder)
        _, arrays = open_group(folder, "r")
        codes = cls(folder, arrays, attributes)
        sizes = {array.shape for name, array in arrays.items() if name != "indptr"}
        if codes.n_tokens < 0 or len(sizes) != 1:
            raise damaged(folder, "its arrays do not fit each other")
        for what, found, wanted in (("tokens", codes.n_tokens, n_tokens), ("latents", codes.d_sae, d_sae)):
            if wanted is not None and found != wanted:
                raise damaged(folder, f"it is of {found} {what} where {wanted} are needed")
        ends = codes._read("indptr", 0, 1), codes._read("indptr", codes.n_tokens, codes.n_tokens + 1)
        if [int(end[0]) for end in ends] != [0, codes.n_nonzeros]:
            raise damaged(folder, "its offsets do not span its entries")
        return codes

    @property
    def n_nonzeros(self) -> int:
        """Number of stored activations."""
        return int(self._arrays["values"].shape[0])

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        """Codes [token, latent] of the tokens [start, stop) of the store, float32.

        Raises:
            UserError: they are damaged.
        """
        assert 0 <= start <= stop <= self.n_tokens, f"tokens {start} to {stop} of {self.n_tokens}"
        pointers = self._read("indptr", start, stop + 1)
        first, last = int(pointers[0]), int(pointers[-1])
        if not 0 <= first <= last <= self.n_nonzeros or (np.diff(pointers) < 0).any():
            raise damaged(self._folder, f"its offsets do not rise from token {start} on")
        indices, values = self._read("indices", first, last), self._read("values", first, last)
        # NaN is not above zero either.
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.d_sae and values.min() > 0):
            raise damaged(self._folder, f"it holds latents or activations that cannot be, from token {start} on")
        if not np.isfinite(values).all() or not _ascends(indices, pointers - first):
            raise damaged(self._folder, f"it holds entries that cannot be, from token {start} on")
        return sparse.csr_array((values, indices, pointers - first), shape=(stop - start, self.d_sae))

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        return read_array(self._folder, self._arrays, name, start, stop)

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


def _whole_codes(folder: Path, store: ActivationStore, sae: Sae) -> Codes | None:
    """Codes that were made before; None, which is said, if they are damaged or those of another store or SAE."""
    try:
        codes = Codes.open(folder, n_tokens=store.n_tokens, d_sae=sae.d_sae)
    except UserError as error:
        log.warning("%s They are made again.", printable(error, 1000))
        return None
    if codes.attributes.get("site") != sae.site:
        log.warning("%s holds the codes of another site: they are made again.", folder)
        return None
    return codes


def _resume(
    partial: Path, store: ActivationStore, sae: Sae, start: int
) -> tuple[zarr.Group, Mapping[str, zarr.Array[Any]], int]:
    """Open codes that were begun, and say how many entries the finished tokens have.

    Raises:
        UserError: what was begun is damaged or of another SAE.
    """
    group, arrays = open_group(partial, "r+")
    attributes = {name: value for name, value in dict(group.attrs).items() if name != SEAL}
    if attributes != {"d_sae": sae.d_sae, "site": sae.site} or arrays["indptr"].shape != (store.n_tokens + 1,):
        raise damaged(partial, "it was begun for another SAE or store")
    pointers = read_array(partial, arrays, "indptr", 0, start + 1)
    n_stored = min(arrays[name].shape[0] for name in ("indices", "values"))
    # Entries of tokens beyond the finished ones may be there or not; those of finished ones must be.
    if len(pointers) != start + 1 or pointers[0] or (np.diff(pointers) < 0).any() or pointers[-1] > n_stored:
        raise damaged(partial, f"{PROGRESS_NAME} speaks of {start} tokens, which are not there")
    return group, arrays, int(pointers[-1])


def _ascends(indices: Int32[np.ndarray, " nonzero"], pointers: Int64[np.ndarray, " token_and_one"]) -> bool:
    """Whether the latents of every token rise."""
    falls = np.diff(indices) <= 0
    between = pointers[1:-1] - 1  # a step from one token to the next may fall
    falls[between[(between >= 0) & (between < len(falls))]] = False
    return not falls.any()


def _read_progress(path: Path) -> int:
    """How many tokens are finished; 0 where nothing was begun."""
    if not path.exists():
        return 0
    remedy = f"delete {printable(path.parent, 4096)} to begin again"
    return Fields(read_object(path, remedy), printable(path, 4096), remedy).integer("n_tokens")
