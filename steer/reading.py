"""Reading the tables of the steer stage, for the packages that go on from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ask.reading import BASELINES, ITEMS
from collect.artefact.table_input import misfit, read_found_tables, require_grid, table_path
from collect.errors import UserError
from collect.printable import printable
from steer.controls import FAMILIES
from steer.edits.operations import Operation
from steer.evidence.summary import SIGNIFICANT_Q
from steer.mechanism.tables import MECHANISM_TABLES, MECHANISMS, TOO_FEW, UNDECIDED
from steer.screens.agreement import missed_bound
from steer.tables import (
    CLAIM_NAMES,
    CLAIMS,
    CONTROLS,
    DISSOCIATIONS,
    EFFECTS,
    LATENT_SUBJECTS,
    SCREEN,
    SCREENS,
    SUMMARY,
    SWEEP,
    TARGET_SUBJECTS,
    TARGETS,
)
from steer.targets import ENOUGH_VIDEOS, Target

__all__ = [
    "CLAIM_NAMES",
    "ENOUGH_VIDEOS",
    "EVERY_SCHEMA",
    "FAMILIES",
    "SIGNIFICANT_Q",
    "TOO_FEW",
    "UNDECIDED",
    "Target",
    "missed_bound",
    "read_effects_tables",
    "read_mechanism_tables",
    "read_targets",
]

SCHEMAS: dict[str, pa.Schema] = {
    "items": ITEMS,
    "baselines": BASELINES,
    "screen": SCREEN,
    "screens": SCREENS,
    "latent_subjects": LATENT_SUBJECTS,
    "targets": TARGETS,
    "controls": CONTROLS,
    "target_subjects": TARGET_SUBJECTS,
    "summary": SUMMARY,
    "claims": CLAIMS,
    "dissociations": DISSOCIATIONS,
    "mechanisms": MECHANISMS,
}
"""Of the tables that are read as a whole."""
EVERY_SCHEMA: dict[str, pa.Schema] = {**SCHEMAS, "sweep": SWEEP, "effects": EFFECTS, **MECHANISM_TABLES}
"""Also of those with a row per item, and of those that mechanisms.parquet sums up."""


def read_effects_tables(folder: Path) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Read the tables of the steer stage's folder, without those of single items (sweep and effects.parquet).

    Returns:
        The tables by name, those that are not there without rows; and the names of these.

    Raises:
        UserError: one is damaged, or they do not fit each other.
    """
    tables, missing = read_found_tables(folder, SCHEMAS)
    paths = {name: table_path(folder, name) for name in SCHEMAS}
    _check_targets(paths, tables)
    for name in ("summary", "claims", "target_subjects"):
        for operation in dict.fromkeys(tables[name]["operation"]):
            if not _is_operation(str(operation)):
                raise misfit(paths[name], f"its column `operation` holds {printable(operation, 60)!r}")
    for name in ("summary", "claims"):
        require_grid(paths[name], tables[name], "target", "operation")
    for name, key in (
        ("target_subjects", ["target", "operation", "subject"]),
        ("latent_subjects", ["latent", "scope", "name"]),
        ("dissociations", ["one", "other"]),
    ):
        if tables[name].duplicated(key).any():
            raise misfit(paths[name], f"it has two rows for one {', '.join(key)}")
    largest = tables["latent_subjects"]["latent"].max() if len(tables["latent_subjects"]) else -1
    if len(tables["screen"]) and largest >= len(tables["screen"]):
        raise misfit(paths["latent_subjects"], f"it speaks of latent {largest} of {len(tables['screen'])}")
    return tables, missing


def read_mechanism_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read doses, swaps, events and all other tables of mechanisms; those that are not there have no rows.

    Raises:
        UserError: one is damaged.
    """
    return read_found_tables(folder, MECHANISM_TABLES)[0]


def read_item_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of single items: `sweep` and `effects`; one that is not there has no rows.

    Raises:
        UserError: one is damaged.
    """
    return read_found_tables(folder, {"sweep": SWEEP, "effects": EFFECTS})[0]


def read_targets(tables: Mapping[str, pd.DataFrame]) -> dict[str, Target]:
    """The targets of `read_effects_tables` by id; where their table is missing, without the labels of sets."""
    table = tables["targets"] if len(tables["targets"]) else tables["summary"].drop_duplicates("target")
    return {
        str(row["target"]): Target(
            id=str(row["target"]),
            latents=tuple(int(latent) for latent in row["latents"]),
            selected_by=str(row["selected_by"]),
            subject=str(row["subject"]),
            label=_text(row.get("label")),
            label_kind=_text(row.get("label_kind")),
        )
        for row in table.to_dict("records")
    }


def _text(value: object) -> str | None:
    """A text, or None where a row has none, which pandas may give as NaN."""
    return value if isinstance(value, str) else None


def _check_targets(paths: Mapping[str, Path], tables: Mapping[str, pd.DataFrame]) -> None:
    """Check that targets are distinct, that their latents exist, and that no table speaks of others."""
    n_latents = len(tables["screen"])
    for name in ("targets", "summary"):
        for latents in tables[name]["latents"]:
            known = [] if latents is None else [int(latent) for latent in latents]
            if not known or len(set(known)) != len(known):
                raise misfit(paths[name], "a target has no latents, or one of them twice")
            if min(known) < 0 or (n_latents and max(known) >= n_latents):
                raise misfit(paths[name], f"it speaks of latent {max(known)} of {n_latents}")
    if tables["targets"]["target"].duplicated().any():
        raise misfit(paths["targets"], "it has one target twice")
    speaking = [(name, "target") for name in ("summary", "controls", "target_subjects", "claims")]
    speaking += [("dissociations", "one"), ("dissociations", "other"), ("mechanisms", "target")]
    for name, column in speaking if len(tables["targets"]) else ():
        others = set(tables[name][column].dropna()) - set(tables["targets"]["target"])
        if others:
            raise misfit(paths[name], f"it speaks of {printable(min(others), 60)!r}, which is no target")
    both = tables["targets"].merge(tables["summary"], on="target", suffixes=("", "_summary"))
    if any(list(one) != list(other) for one, other in zip(both["latents"], both["latents_summary"], strict=True)):
        raise misfit(paths["summary"], "a target has other latents than in targets.parquet")
    if (both["subject"] != both["subject_summary"]).any():
        raise misfit(paths["summary"], "a target has another subject than in targets.parquet")


def _is_operation(text: str) -> bool:
    try:
        Operation.parse(text)
    except UserError:
        return False
    return True
