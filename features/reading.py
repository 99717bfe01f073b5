"""Reading the tables of the features stage, for the stages after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from collect.artefact.table_input import misfit, read_found_table, read_found_tables, table_path
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS
from features.combinations.combine import COMBINATIONS
from features.labels.brightness import BRIGHTNESS
from features.moments import MOMENTS

SCHEMAS: dict[str, pa.Schema] = {"catalogue": CATALOGUE, "associations": ASSOCIATIONS, "exemplars": EXEMPLARS}
EVERY_SCHEMA: dict[str, pa.Schema] = {
    **SCHEMAS,
    "moments": MOMENTS,
    "combinations": COMBINATIONS,
    "brightness": BRIGHTNESS,
}
"""Also of moments, which a run of an earlier version lacks, and of those that are only made if asked for."""

ASSOCIATIONS_NAME = "associations.parquet"


def read_features_table(folder: Path, name: str) -> pd.DataFrame | None:
    """Read one table of the stage's folder, such as `catalogue` or `combinations`; None where it is not there.

    Raises:
        UserError: it is damaged or another table.
    """
    return read_found_table(folder, name, EVERY_SCHEMA[name])


def read_features_tables(folder: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read all tables of the stage's folder.

    Returns:
        The tables by name, those that are not there without rows; and the names of these.

    Raises:
        UserError: one is damaged, or they are not about the same latents.
    """
    tables, missing = read_found_tables(folder, SCHEMAS)
    latents = tables["catalogue"]["latent"].to_numpy()
    if not np.array_equal(latents, np.arange(len(latents))):
        raise misfit(table_path(folder, "catalogue"), "its rows are not the latents from 0 on")
    for name in ("associations", "exemplars"):
        highest = tables[name]["latent"].max() if len(tables[name]) else -1
        if len(latents) and highest >= len(latents):
            raise misfit(table_path(folder, name), f"it speaks of latent {highest} of {len(latents)}")
    return tables, missing
