"""Reads what was asked and answered, for the packages that use it: items, baselines and the site profile."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ask.profile import KEPT_SHARE, TABLE_NAME
from ask.tables import BASELINES, ITEMS, PROFILE
from collect.artefact.folder import read_object
from collect.artefact.json_fields import Fields
from collect.artefact.stage import SUMMARY_NAME
from collect.artefact.table_input import read_found_table, require_grid
from collect.errors import UserError
from collect.printable import printable

__all__ = ["BASELINES", "ITEMS", "KEPT_SHARE", "PROFILE", "picked_site", "read_profile_table"]


def read_profile_table(run: Path) -> pd.DataFrame | None:
    """Read a run's profile.parquet; None if it is not there.

    Raises:
        UserError: it is damaged, or does not hold one row for every site and kind of question.
    """
    folder = run / "profile"
    table = read_found_table(folder, TABLE_NAME.removesuffix(".parquet"), PROFILE)
    if table is not None:
        require_grid(folder / TABLE_NAME, table, "site", "kind")
    return table


def picked_site(run: Path) -> str:
    """Read the site that a run's profile picked.

    Raises:
        UserError: the run has no finished profile, or its summary is damaged.
    """
    path = run / "profile" / SUMMARY_NAME
    if not path.exists():
        raise UserError(f"{printable(path, 4096)} does not exist: run `video-sae profile --out {run}` first.")
    remedy = f"delete {printable(path.parent, 4096)} and run `video-sae profile` again"
    return Fields(read_object(path, remedy), printable(path, 4096), remedy).text("site")
