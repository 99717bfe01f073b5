"""Writing a compressed matrix of codes row by row, in either order; a run that was killed goes on from the last rows.

The matrix is written beside its final name, sealed (`features.codes_files`) and renamed when complete. After every
`append` the number of finished rows goes to a progress file; what lies beyond them is written again, so that the bytes
are those of a run that was never interrupted.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float32, Int

from collect.artefact.folder import read_object, remove_orphans, write_json
from collect.artefact.json_fields import Fields
from collect.printable import printable
from features.codes_files import SEAL, create_group, damaged, open_group, read_array, seal

PROGRESS_NAME = "progress.json"
PARTIAL_SUFFIX = ".partial"


class CodesWriter:
    """Appends rows to a matrix; begins it, or goes on with one that was begun.

    Args:
        folder: final name of the matrix.
        n_rows: rows that it will have.
        attributes: what the group says about itself; one that was begun has to say the same.

    Raises:
        UserError: what was begun is damaged, or of another store or SAE.
    """

    def __init__(self, folder: Path, n_rows: int, attributes: Mapping[str, Any]) -> None:
        self.folder = folder
        self.n_rows = n_rows
        self._partial = partial_folder(folder)
        self.n_done = _read_progress(self._partial / PROGRESS_NAME)
        """Rows that are finished."""
        self._n_entries = 0
        if not self.n_done:
            create_group(self._partial, n_rows, attributes)
        self._group, self._arrays = open_group(self._partial, "r+")
        if self.n_done:
            self._n_entries = _entries_of(self._partial, self._group, self._arrays, n_rows, self.n_done, attributes)

    def left(self, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The pieces between the cuts that are not finished, as (first row, row after the last).

        Raises:
            UserError: the finished rows do not end at a cut.
        """
        if self.n_done not in cuts:
            raise damaged(self._partial, f"{PROGRESS_NAME} speaks of {self.n_done} rows, where no piece ends")
        begun = self.n_done
        return ((start, stop) for start, stop in itertools.pairwise(cuts) if start >= begun and stop > start)

    def append(
        self,
        pointers: Int[np.ndarray, " row_and_one"],
        indices: Int[np.ndarray, " nonzero"],
        values: Float32[np.ndarray, " nonzero"],
    ) -> None:
        """Write the next rows.

        Args:
            pointers: offsets of the rows in `indices` and `values`, from 0 on.
            indices: columns, ascending within a row.
            values: above 0.
        """
        stop, end = self.n_done + len(pointers) - 1, self._n_entries + len(indices)
        assert stop <= self.n_rows, "more rows than announced"
        for name, data in (("indices", indices), ("values", values)):
            self._arrays[name].resize((end,))
            self._arrays[name][self._n_entries : end] = data
        self._arrays["indptr"][self.n_done + 1 : stop + 1] = self._n_entries + pointers[1:]
        self.n_done, self._n_entries = stop, end
        write_json(self._partial / PROGRESS_NAME, {"n_rows": stop})

    def finish(self) -> None:
        """Seal the matrix and give it its name."""
        assert self.n_done == self.n_rows, "rows are missing"
        remove_orphans(self._partial)
        for orphan in self._partial.rglob("*.partial"):  # what zarr had begun to write when its process was killed
            orphan.unlink()
        seal(self._partial, self._group)
        (self._partial / PROGRESS_NAME).unlink(missing_ok=True)
        self._partial.rename(self.folder)


def partial_folder(folder: Path) -> Path:
    """Where a matrix is written before it has its name."""
    return folder.with_name(folder.name + PARTIAL_SUFFIX)


def remove_codes(folder: Path) -> None:
    """Remove a matrix, and what was begun of it."""
    for path in (folder, partial_folder(folder)):
        if path.exists():
            shutil.rmtree(path)


def _entries_of(
    partial: Path,
    group: zarr.Group,
    arrays: Mapping[str, zarr.Array[Any]],
    n_rows: int,
    n_done: int,
    attributes: Mapping[str, Any],
) -> int:
    """How many entries the finished rows of a matrix that was begun have."""
    found = {name: value for name, value in dict(group.attrs).items() if name != SEAL}
    if found != dict(attributes) or arrays["indptr"].shape != (n_rows + 1,):
        raise damaged(partial, "it was begun for another SAE or store")
    if not 0 < n_done <= n_rows:
        raise damaged(partial, f"{PROGRESS_NAME} speaks of {n_done} rows of {n_rows}")
    pointers = read_array(partial, arrays, "indptr", 0, n_done + 1)
    n_stored = min(arrays[name].shape[0] for name in ("indices", "values"))
    # Entries of rows beyond the finished ones may be there or not; those of finished ones must be.
    if pointers[0] or (np.diff(pointers) < 0).any() or pointers[-1] > n_stored:
        raise damaged(partial, f"{PROGRESS_NAME} speaks of {n_done} rows, which are not there")
    return int(pointers[-1])


def _read_progress(path: Path) -> int:
    """How many rows are finished; 0 where nothing was begun."""
    if not path.exists():
        return 0
    remedy = f"delete {printable(path.parent, 4096)} to begin again"
    return Fields(read_object(path, remedy), printable(path, 4096), remedy).integer("n_rows")
