"""Mutations of what a parquet table says; the file itself stays in order."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.json_mutations import TEXTS

VALUES: dict[str, tuple[Any, ...]] = {
    "int": (-1, 0, 10**6, 2**31 - 1),
    "double": (float("nan"), float("inf"), -1.0, 2.0, 1e300),
    "float": (float("nan"), float("inf"), -1.0, 1e30),
    "string": (*(text for text in TEXTS if text != "\ud800"), "/etc/passwd", "../../../outside/made"),
    "bool": (True, False),
}


def _read(path: Path) -> pa.Table | None:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException):
        return None


def _write(path: Path, table: pa.Table, words: str) -> str:
    pq.write_table(table, path, compression="zstd")
    return words


def drop_column(path: Path, rng: Random, _: Path) -> str | None:
    """Leave a column out."""
    table = _read(path)
    if table is None or not table.num_columns:
        return None
    name = rng.choice(table.column_names)
    return _write(path, table.drop_columns([name]), f"dropped column {name}")


def rename_column(path: Path, rng: Random, _: Path) -> str | None:
    """Give a column another name, perhaps that of another one."""
    table = _read(path)
    if table is None or not table.num_columns:
        return None
    names = list(table.column_names)
    number, name = rng.randrange(len(names)), rng.choice(("other", "", "\x1b[31m", *names))
    old, names[number] = names[number], name
    return _write(path, table.rename_columns(names), f"renamed column {old} to {name!r}")


def change_column_type(path: Path, rng: Random, _: Path) -> str | None:
    """Store a column as another type."""
    table = _read(path)
    if table is None or not table.num_columns:
        return None
    number = rng.randrange(table.num_columns)
    name = table.column_names[number]
    column = pa.array([None if value is None else str(value) for value in table[number].to_pylist()], pa.string())
    if pa.types.is_string(table[number].type):
        column = pa.array(range(table.num_rows), pa.int64())
    return _write(path, table.set_column(number, name, column), f"column {name} became {column.type}")


def change_value(path: Path, rng: Random, _: Path) -> str | None:
    """Put a value into a cell that cannot be right, or none."""
    table = _read(path)
    if table is None or not table.num_columns or not table.num_rows:
        return None
    number, row = rng.randrange(table.num_columns), rng.randrange(table.num_rows)
    field = table.schema.field(number)
    fitting = next((new for kind, new in VALUES.items() if str(field.type).startswith(kind)), ())
    value = rng.choice((*fitting, *fitting, None))
    values = table[number].to_pylist()
    values[row] = value
    column = pa.array(values, field.type)
    if value is None:
        field = field.with_nullable(True)  # pyarrow writes no missing value into a column that is to have none
    return _write(path, table.set_column(number, field, column), f"put {value!r} into {field.name} of row {row}")


def no_rows(path: Path, _: Random, __: Path) -> str | None:
    """Leave no row."""
    table = _read(path)
    return None if table is None or not table.num_rows else _write(path, table.slice(0, 0), "left no row")


def repeat_rows(path: Path, rng: Random, _: Path) -> str | None:
    """Put a row there twice."""
    table = _read(path)
    if table is None or not table.num_rows:
        return None
    row = rng.randrange(table.num_rows)
    return _write(path, pa.concat_tables([table, table.slice(row, 1)]), f"doubled row {row}")


def reorder_rows(path: Path, _: Random, __: Path) -> str | None:
    """Turn the order of the rows round."""
    table = _read(path)
    if table is None or table.num_rows < 2:
        return None
    return _write(path, table.take(list(range(table.num_rows))[::-1]), "turned the rows round")


MUTATIONS = (
    drop_column,
    rename_column,
    change_column_type,
    change_value,
    change_value,
    no_rows,
    repeat_rows,
    reorder_rows,
)
