"""Which latents are run exactly: the given ones, the screen's top, and the best associated ones of the features stage.

Selection uses train videos only, so that the held-out videos can confirm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from collect.artefact import read_table
from collect.errors import UserError
from steer.exact import Target

logger = logging.getLogger(__name__)

ASSOCIATIONS_NAME = "associations.parquet"


def by_screen(screen: pd.DataFrame, n: int) -> list[int]:
    """Return the `n` latents with the largest standardised attribution on the train videos, in size."""
    return _leading(screen, -screen["z_train"].abs(), n)


def by_predicted_cost(screen: pd.DataFrame, n: int) -> list[int]:
    """Return up to `n` latents whose ablation the screen says lowers the counting margin most reliably.

    All have one sign, so that ablated together they add up instead of cancelling.
    """
    return _leading(screen[screen["z_train"] < 0], screen["z_train"], n)


def _leading(screen: pd.DataFrame, key: pd.Series, n: int) -> list[int]:
    """Return the latents of the first `n` rows by a key; ties go to the smaller latent, unknown keys are left out."""
    ranked = screen.assign(key=key).dropna(subset="key").sort_values(["key", "latent"], kind="stable")
    return [int(latent) for latent in ranked["latent"].head(n)]


def by_association(folder: Path, n: int) -> list[int]:
    """Return the `n` latents with the highest AUROC on the train videos, each label giving its best latent first.

    Args:
        folder: of the features stage for this SAE; without its associations the result is empty.
        n: number of latents.
    """
    path = folder / ASSOCIATIONS_NAME
    if n == 0 or not path.is_file():
        if n:
            logger.info("%s does not exist, so no latent is taken from the features stage", path)
        return []
    table = read_table(path)
    table = table[table["split"] == "train"].dropna(subset="auroc")
    table = table.sort_values(["auroc", "latent", "label"], ascending=[False, True, True], kind="stable")
    # The first of every label, then the second of every label …: one easy label must not take all places.
    turn = table.groupby(["kind", "label"]).cumcount()
    table = table.assign(turn=turn).sort_values("turn", kind="stable")
    return [int(latent) for latent in table["latent"].drop_duplicates().head(n)]


def targets(
    screen: pd.DataFrame,
    *,
    d_sae: int,
    given: Sequence[int],
    top: int,
    associated: Sequence[int],
    set_size: int,
) -> list[Target]:
    """List the targets of the exact runs: single latents in the order of selection, and the set last.

    A latent selected twice counts for the first of: given, screen, associated. One that never fires on the evaluated
    videos is left out unless given.

    Raises:
        UserError: a given latent is not one of the SAE's.
    """
    beyond = [latent for latent in given if latent >= d_sae]
    if beyond:
        raise UserError(f"--latents {beyond[0]} does not exist: this SAE has the latents 0 to {d_sae - 1}.")
    alive = screen[screen["status"] == "screened"]
    active = set(alive["latent"])
    chosen: dict[int, str] = dict.fromkeys(given, "given")
    for latent in by_screen(alive, top):
        chosen.setdefault(latent, "screen")
    for latent in associated:
        if latent in active:
            chosen.setdefault(latent, "associated")
    found = [Target(name=str(latent), latents=(latent,), selected_by=reason) for latent, reason in chosen.items()]
    together = by_predicted_cost(alive, set_size)
    if len(together) > 1:
        found.append(Target(name="set", latents=tuple(together), selected_by="set"))
    return found
