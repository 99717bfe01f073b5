"""Sparse codes of every stored token, in both orders, and reading them.

`codes.zarr` is a compressed sparse row matrix [token, latent] in the order of the store: `indptr` int64 [n_tokens + 1],
`indices` int32 [nonzero] and `values` float32 [nonzero], ascending by latent within a token. `codes_by_latent.zarr`
beside it is its transpose, with `indptr` [d_sae + 1] and tokens as `indices`. So the codes of some tokens and those of
some latents both lie in one piece. `features.encoding` makes the first, `features.codes_by_latent` the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, Int32, Int64
from scipy import sparse

from features.codes_files import CHUNK, SEAL, check_seal, damaged, open_group, read_array

BLOCK_TOKENS = 1 << 16
"""Tokens that a pass over the codes holds at once."""
BY_LATENT_NAME = "codes_by_latent.zarr"


class SealedRows:
    """Reader of one compressed matrix.

    Whatever it gives was checked: offsets that rise, columns below `n_columns` that rise within a row, activations that
    are finite and above zero.
    """

    def __init__(self, folder: Path, arrays: Mapping[str, zarr.Array[Any]], n_columns: int) -> None:
        self._folder = folder
        self._arrays = arrays
        self.n_rows = int(arrays["indptr"].shape[0]) - 1
        self.n_columns = n_columns
        sizes = {array.shape for name, array in arrays.items() if name != "indptr"}
        if self.n_rows < 0 or len(sizes) != 1:
            raise damaged(folder, "its arrays do not fit each other")
        ends = self.read("indptr", 0, 1), self.read("indptr", self.n_rows, self.n_rows + 1)
        if [int(end[0]) for end in ends] != [0, self.n_nonzeros]:
            raise damaged(folder, "its offsets do not span its entries")

    @property
    def n_nonzeros(self) -> int:
        """Number of stored activations."""
        return int(self._arrays["values"].shape[0])

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        """The rows [start, stop), float32.

        Raises:
            UserError: they are damaged.
        """
        assert 0 <= start <= stop <= self.n_rows, f"rows {start} to {stop} of {self.n_rows}"
        pointers = self.pointers(start, stop)
        indices, values = self.entries(start, pointers)
        return sparse.csr_array((values, indices, pointers - pointers[0]), shape=(stop - start, self.n_columns))

    def pointers(self, start: int, stop: int) -> Int64[np.ndarray, " row_and_one"]:
        """Where the rows [start, stop) begin and end among all entries.

        Raises:
            UserError: they are damaged.
        """
        pointers = self.read("indptr", start, stop + 1)
        if not 0 <= pointers[0] <= pointers[-1] <= self.n_nonzeros or (np.diff(pointers) < 0).any():
            raise damaged(self._folder, f"its offsets do not rise from row {start} on")
        return pointers

    def entries(
        self, start: int, pointers: Int64[np.ndarray, " row_and_one"]
    ) -> tuple[Int32[np.ndarray, " nonzero"], Float32[np.ndarray, " nonzero"]]:
        """Columns and activations of the rows from `start` on, whose entries lie at `pointers`.

        Raises:
            UserError: they are damaged.
        """
        first, last = int(pointers[0]), int(pointers[-1])
        indices, values = self.read("indices", first, last), self.read("values", first, last)
        # NaN is not above zero either.
        if len(indices) and not (indices.min() >= 0 and indices.max() < self.n_columns and values.min() > 0):
            raise damaged(self._folder, f"it holds indices or activations that cannot be, from row {start} on")
        if not np.isfinite(values).all() or not _ascends(indices, pointers - first):
            raise damaged(self._folder, f"it holds entries that cannot be, from row {start} on")
        return indices, values

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """A part of one array."""
        return read_array(self._folder, self._arrays, name, start, stop)


class Codes:
    """Reader of the codes in both orders."""

    def __init__(self, folder: Path, attributes: Mapping[str, Any], by_token: SealedRows) -> None:
        self.folder = folder
        self.attributes: dict[str, Any] = dict(attributes)
        self.d_sae = by_token.n_columns
        self.n_tokens = by_token.n_rows
        self._by_token = by_token

    @classmethod
    def open(cls, folder: Path, *, n_tokens: int | None = None, d_sae: int | None = None) -> Codes:
        """Open finished codes, whose seal is checked; activations are checked as they are read.

        The copy by latent is opened when it is first needed.

        Args:
            folder: `codes.zarr`.
            n_tokens: tokens of the store that they have to be of; any where None.
            d_sae: latents of the SAE that they have to be of; any where None.

        Raises:
            UserError: there are none, they are damaged, or they are of another store or SAE.
        """
        attributes = check_seal(folder)
        _, arrays = open_group(folder, "r")
        codes = cls(folder, attributes, SealedRows(folder, arrays, int(attributes["d_sae"])))
        for what, found, wanted in (("tokens", codes.n_tokens, n_tokens), ("latents", codes.d_sae, d_sae)):
            if wanted is not None and found != wanted:
                raise damaged(folder, f"it is of {found} {what} where {wanted} are needed")
        return codes

    @property
    def by_latent_folder(self) -> Path:
        """Where the copy by latent lies."""
        return self.folder.with_name(BY_LATENT_NAME)

    @property
    def by_latent_attributes(self) -> dict[str, Any]:
        """What the copy by latent says about itself, its seal aside: it names the codes that it is a copy of."""
        return {"d_sae": self.d_sae, "site": self.attributes["site"], "of": self.attributes[SEAL]}

    @cached_property
    def _by_latent(self) -> SealedRows:
        """The copy by latent.

        Raises:
            UserError: there is none, it is damaged, or it is not of these codes.
        """
        folder = self.by_latent_folder
        attributes = check_seal(folder)
        if {name: value for name, value in attributes.items() if name != SEAL} != self.by_latent_attributes:
            raise damaged(folder, f"it is not a copy of {self.folder.name}")
        _, arrays = open_group(folder, "r")
        copy = SealedRows(folder, arrays, self.n_tokens)
        if (copy.n_rows, copy.n_nonzeros) != (self.d_sae, self.n_nonzeros):
            raise damaged(folder, f"its sizes are not those of {self.folder.name}")
        return copy

    @cached_property
    def _latent_pointers(self) -> Int64[np.ndarray, " latent_and_one"]:
        return self._by_latent.pointers(0, self.d_sae)

    @property
    def n_nonzeros(self) -> int:
        """Number of stored activations."""
        return self._by_token.n_nonzeros

    def rows(self, start: int, stop: int) -> sparse.csr_array:
        """Codes [token, latent] of the tokens [start, stop) of the store, float32.

        Raises:
            UserError: they are damaged.
        """
        return self._by_token.rows(start, stop)

    def blocks(self, n_tokens: int = BLOCK_TOKENS) -> Iterator[tuple[int, sparse.csr_array]]:
        """All codes in order, as (first token, codes of up to `n_tokens` tokens)."""
        for start in range(0, self.n_tokens, n_tokens):
            yield start, self.rows(start, min(start + n_tokens, self.n_tokens))

    def n_active(self) -> Int64[np.ndarray, " latent"]:
        """Tokens at which each latent is active."""
        return np.diff(self._latent_pointers)

    def by_latent(self, latents: Int64[np.ndarray, " latent"]) -> sparse.csc_array:
        """Codes [token, len(latents)] of some latents over all tokens, with ascending tokens; reads no others'.

        Raises:
            UserError: they are damaged.
        """
        assert ((latents >= 0) & (latents < self.d_sae)).all(), f"latents of {self.d_sae}"
        pointers = self._latent_pointers
        # Latents that nearly follow each other are read in one piece, with what lies between them.
        between = pointers[latents[1:]] - pointers[latents[:-1] + 1]
        cuts = np.flatnonzero((between < 0) | (between > CHUNK)) + 1
        parts = [self._piece(run) for run in np.split(latents, cuts) if len(run)]
        tokens = np.concatenate([np.empty(0, dtype=np.int32), *(part[0] for part in parts)])
        values = np.concatenate([np.empty(0, dtype=np.float32), *(part[1] for part in parts)])
        ends = np.cumsum([0, *(pointers[latents + 1] - pointers[latents])])
        narrow = ends.astype(np.int32) if ends[-1] < 2**31 else ends  # scipy widens all indices where one is wide
        return sparse.csc_array((values, tokens, narrow), shape=(self.n_tokens, len(latents)))

    def _piece(
        self, latents: Int64[np.ndarray, " latent"]
    ) -> tuple[Int32[np.ndarray, " nonzero"], Float32[np.ndarray, " nonzero"]]:
        """Tokens and activations of some ascending latents, with one read."""
        first, stop = int(latents[0]), int(latents[-1]) + 1
        pointers = self._latent_pointers[first : stop + 1]
        tokens, values = self._by_latent.entries(first, pointers)
        if stop - first == len(latents):
            return tokens, values
        wanted = np.zeros(stop - first, dtype=bool)
        wanted[latents - first] = True
        kept = np.repeat(wanted, np.diff(pointers))
        return tokens[kept], values[kept]

    def columns(self, latents: Int64[np.ndarray, " latent"]) -> sparse.csr_array:
        """Codes [token, len(latents)] of some latents over all tokens, by token."""
        return sparse.csr_array(self.by_latent(latents))

    def column(self, latent: int) -> tuple[Int64[np.ndarray, " nonzero"], Float32[np.ndarray, " nonzero"]]:
        """Tokens at which one latent is active, ascending, and its activations there."""
        column = self.by_latent(np.array([latent]))
        return column.indices.astype(np.int64), column.data


def _ascends(indices: Int32[np.ndarray, " nonzero"], pointers: Int64[np.ndarray, " row_and_one"]) -> bool:
    """Whether the columns of every row rise."""
    falls = indices[1:] <= indices[:-1]
    between = pointers[1:-1] - 1  # a step from one row to the next may fall
    falls[between[(between >= 0) & (between < len(falls))]] = False
    return not falls.any()
