"""Tables of a finished stage, as another stage reads them: which are there, and whether their numbers are possible.

A table that is damaged or does not fit the others is an error that names it. A missing table is read as one without
rows and is named, since a reader can often do without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from collect.artefact.folder import read_table
from collect.errors import UserError
from collect.printable import printable

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LARGEST = 1e30
"""No activation, score or margin comes near it, and charts and pictures cannot be drawn beyond it."""


def table_path(folder: Path, name: str) -> Path:
    """Where a stage keeps a table."""
    return folder / f"{name}.parquet"


def empty_table(schema: pa.Schema) -> pd.DataFrame:
    """A table without rows."""
    return schema.empty_table().to_pandas()


def read_found_table(folder: Path, name: str, schema: pa.Schema) -> pd.DataFrame | None:
    """Read one table of a stage's folder; None if it is not there.

    Raises:
        UserError: it is damaged, or holds an impossible number.
    """
    path = table_path(folder, name)
    if not path.exists():
        return None
    table = read_table(path, schema)
    for column in table.select_dtypes("float"):
        largest = table[column].abs().max()
        if largest > LARGEST:
            raise misfit(path, f"its column `{column}` holds {largest:g}")
    return table


def read_found_tables(
    folder: Path, schemas: Mapping[str, pa.Schema]
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read all tables of a stage's folder.

    Returns:
        The tables by name, with missing ones as tables without rows; and the names of the missing ones.

    Raises:
        UserError: one is damaged, or holds an impossible number.
    """
    found = {name: read_found_table(folder, name, schema) for name, schema in schemas.items()}
    tables = {name: empty_table(schemas[name]) if table is None else table for name, table in found.items()}
    return tables, tuple(name for name, table in found.items() if table is None)


def require_grid(path: Path, table: pd.DataFrame, one: str, other: str) -> None:
    """Check that a table has one row for every value of one column with every value of another.

    Raises:
        UserError: it has not.
    """
    if len(table) != table[one].nunique() * table[other].nunique() or table.duplicated([one, other]).any():
        raise misfit(path, f"it does not hold one row for every {one} and {other}")


def misfit(path: Path, reason: str) -> UserError:
    """The error for a table that is whole and still cannot be used."""
    folder = printable(path.parent, 4096)
    return UserError(f"{printable(path, 4096)} cannot be used ({reason}): delete {folder} and run its stage again.")
