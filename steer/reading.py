"""Reading the tables of the steer and profile stages.

A table that is damaged or does not fit the others is an error that names it; one that is not there is read as one
without rows and named, since a reader can often go on without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ask.tables import BASELINES, ITEMS, PROFILE
from collect.artefact.folder import read_table
from collect.errors import UserError
from collect.printable import printable
from features.reading import implausible
from steer.config import Operation
from steer.tables import CONTROLS, SCREEN, SUMMARY
from steer.target_names import is_set

SCHEMAS: dict[str, pa.Schema] = {
    "items": ITEMS,
    "baselines": BASELINES,
    "screen": SCREEN,
    "controls": CONTROLS,
    "summary": SUMMARY,
}


def read_effects_tables(folder: Path) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Read the tables of the steer stage's folder, without effects.parquet.

    Returns:
        The tables by name, those that are not there without rows; and the names of these.

    Raises:
        UserError: one is damaged, or a target or an operation is none.
    """
    paths = {name: folder / f"{name}.parquet" for name in SCHEMAS}
    found = {name: read_table(path, SCHEMAS[name]) if path.exists() else None for name, path in paths.items()}
    tables = {name: _empty(SCHEMAS[name]) if table is None else table for name, table in found.items()}
    n_latents = len(tables["screen"])

    def is_target(name: str) -> bool:
        known = re.fullmatch(r"0|[1-9]\d{0,9}", name, re.ASCII) and (not n_latents or int(name) < n_latents)
        return is_set(name) or bool(known)

    _check(paths["summary"], tables["summary"], "target", is_target)
    _check(paths["summary"], tables["summary"], "operation", _is_operation)
    if (tables["summary"]["latents"].map(lambda latents: latents is None or not len(latents))).any():
        raise _misfit(paths["summary"], "a target has no latents")
    _check_grid(paths["summary"], tables["summary"], "target", "operation")
    for name, path in paths.items():
        _check_sizes(path, tables[name])
    return tables, [name for name, table in found.items() if table is None]


def read_profile_table(folder: Path) -> pd.DataFrame | None:
    """Read profile.parquet; None where it is not there.

    Raises:
        UserError: it is damaged, or does not hold one row for every site and kind of question.
    """
    path = folder / "profile.parquet"
    if not path.exists():
        return None
    table = read_table(path, PROFILE)
    _check_grid(path, table, "site", "kind")
    _check_sizes(path, table)
    return table


def _check_grid(path: Path, table: pd.DataFrame, one: str, other: str) -> None:
    if len(table) != table[one].nunique() * table[other].nunique() or table.duplicated([one, other]).any():
        raise _misfit(path, f"it does not hold one row for every {one} and {other}")


def _check_sizes(path: Path, table: pd.DataFrame) -> None:
    if (reason := implausible(table)) is not None:
        raise _misfit(path, reason)


def _check(path: Path, table: pd.DataFrame, column: str, is_valid: Callable[[str], bool]) -> None:
    for value in dict.fromkeys(table[column]):
        if not is_valid(str(value)):
            raise _misfit(path, f"its column `{column}` holds {printable(value, 60)!r}")


def _is_operation(text: str) -> bool:
    try:
        Operation.parse(text)
    except UserError:
        return False
    return True


def _misfit(path: Path, reason: str) -> UserError:
    folder = printable(path.parent, 4096)
    return UserError(f"{printable(path, 4096)} cannot be used ({reason}): delete {folder} and run its stage again.")


def _empty(schema: pa.Schema) -> pd.DataFrame:
    return schema.empty_table().to_pandas()
