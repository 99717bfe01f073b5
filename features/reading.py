"""Reading the tables of the features stage, for the stages after it.

A table that is damaged or does not fit the others is an error that names it; one that is not there is not, since a
reader can often go on without it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from collect.artefact.folder import read_table
from collect.errors import UserError
from collect.printable import printable
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS, empty_table

SCHEMAS: dict[str, pa.Schema] = {"catalogue": CATALOGUE, "associations": ASSOCIATIONS, "exemplars": EXEMPLARS}

ASSOCIATIONS_NAME = "associations.parquet"

LARGEST = 1e30
"""No activation, score or margin comes near it, and charts and pictures cannot be drawn beyond it."""


def table_path(folder: Path, name: str) -> Path:
    """Where a table of the features stage lies."""
    return folder / f"{name}.parquet"


def read_features_table(folder: Path, name: str) -> pd.DataFrame | None:
    """Read one table of the stage's folder: `catalogue`, `associations` or `exemplars`; None where it is not there.

    Raises:
        UserError: it is damaged or another table.
    """
    path = table_path(folder, name)
    return read_table(path, SCHEMAS[name]) if path.exists() else None


def read_features_tables(folder: Path) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read all tables of the stage's folder.

    Returns:
        The tables by name, those that are not there without rows; and the names of these.

    Raises:
        UserError: one is damaged, or they are not about the same latents.
    """
    found = {name: read_features_table(folder, name) for name in SCHEMAS}
    tables = {name: empty_table(SCHEMAS[name]) if table is None else table for name, table in found.items()}
    latents = tables["catalogue"]["latent"].to_numpy()
    if not np.array_equal(latents, np.arange(len(latents))):
        raise _misfit(table_path(folder, "catalogue"), "its rows are not the latents from 0 on")
    for name, table in tables.items():
        if (reason := implausible(table)) is not None:
            raise _misfit(table_path(folder, name), reason)
    for name in ("associations", "exemplars"):
        highest = tables[name]["latent"].max() if len(tables[name]) else -1
        if len(latents) and highest >= len(latents):
            raise _misfit(table_path(folder, name), f"it speaks of latent {highest} of {len(latents)}")
    return tables, [name for name, table in found.items() if table is None]


def implausible(table: pd.DataFrame) -> str | None:
    """Which column of a table holds a number that none can be, as part of a sentence; None if none does."""
    for column in table.select_dtypes("float"):
        largest = table[column].abs().max()
        if largest > LARGEST:
            return f"its column `{column}` holds {largest:g}"
    return None


def _misfit(path: Path, reason: str) -> UserError:
    return UserError(
        f"{printable(path, 4096)} does not belong with the tables beside it ({reason}): "
        f"delete {printable(path.parent, 4096)} and run `video-sae features` again."
    )
