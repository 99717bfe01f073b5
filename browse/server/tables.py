"""What is shown, as CSV or parquet."""

from __future__ import annotations

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from browse.shards import Column, Shard
from collect.errors import UserError

FORMATS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table_of(shard: Shard, kind: str, latents: str = "all", columns: str = "") -> bytes:
    """Some rows and columns of a shard.

    Args:
        shard: one row per latent.
        kind: `csv` or `parquet`.
        latents: numbers of latents with commas between them, in the order in which they are wanted; or `all`.
        columns: names of columns with commas between them; all of them if empty.

    Raises:
        UserError: a latent or a column is none of the shard.
    """
    rows = _rows(latents, shard.n_rows)
    names = [name for name in columns.split(",") if name] or list(shard.columns)
    unknown = [name for name in names if name not in shard.columns]
    if unknown:
        raise UserError(f"There is no column {unknown[0][:100]!r}.")
    if kind == "parquet":
        return _parquet({name: shard.columns[name] for name in names}, rows)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    values = [shard.columns[name].decoded() for name in names]
    writer.writerows([_cell(column[row]) for column in values] for row in rows.tolist())
    return buffer.getvalue().encode()


def _rows(latents: str, n_rows: int) -> Int64[np.ndarray, " row"]:
    if latents == "all":
        return np.arange(n_rows)
    parts = latents.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 11 and int(part) < n_rows for part in parts):
        raise UserError("latents are numbers with commas between them, or all.")
    return np.array([int(part) for part in parts], dtype=np.int64)


def _cell(value: object) -> object:
    """A value as CSV has it; a text that a spreadsheet would run as a formula is marked as text."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    if isinstance(value, float):
        return f"{value:.7g}"
    return value


def _parquet(columns: dict[str, Column], rows: Int64[np.ndarray, " row"]) -> bytes:
    arrays: dict[str, pa.Array] = {}
    for name, column in columns.items():
        if column.kind in ("f4", "q2"):
            arrays[name] = pa.array(column.numbers()[rows], from_pandas=True)
        elif column.kind == "u1":
            arrays[name] = pa.array(np.asarray(column.values)[rows].astype(bool))
        else:
            values = column.decoded()
            kind = pa.int32() if column.kind == "i4" else pa.string()
            arrays[name] = pa.array([values[row] for row in rows.tolist()], type=kind)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue().to_pybytes()
