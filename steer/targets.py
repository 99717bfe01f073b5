"""What is run exactly: the given latents, the screen's top, the best of the best labels, and sets of latents.

Selection uses train videos only, so that the held-out videos can confirm.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from collect.errors import UserError
from features.catalogue import ASKED_KINDS
from features.reading import read_features_table

logger = logging.getLogger(__name__)

FOLLOWS_AUROC = 0.75
"""AUROC on train videos from which a latent counts among those of a label."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Latents that are edited together."""

    id: str
    """Its key in every table; made to be read, and never taken apart."""
    latents: tuple[int, ...]
    selected_by: str
    """`given`, `screen` or `associated`."""
    label: str | None = None
    """The label whose latents they are; None for a single latent and for the screen's set."""
    label_kind: str | None = None

    @property
    def is_set(self) -> bool:
        """Whether several latents are edited together."""
        return len(self.latents) > 1


def by_screen(screen: pd.DataFrame, n: int) -> list[int]:
    """Return the `n` latents with the largest standardised attribution on the train videos, in size."""
    return _leading(screen, -screen["z_train"].abs(), n)


def by_predicted_cost(screen: pd.DataFrame, n: int) -> list[int]:
    """Return up to `n` latents whose ablation the screen says lowers the counting margin most reliably.

    All have one sign, so that ablated together they add up instead of cancelling.
    """
    costly = screen[screen["z_train"] < 0]
    return _leading(costly, costly["z_train"], n)


def _leading(screen: pd.DataFrame, key: pd.Series, n: int) -> list[int]:
    """Return the latents of the first `n` rows by a key; ties go to the smaller latent, unknown keys are left out."""
    ranked = screen.assign(key=key).dropna(subset="key").sort_values(["key", "latent"], kind="stable")
    return [int(latent) for latent in ranked["latent"].head(n)]


@dataclass(frozen=True, kw_only=True)
class LabelLatents:
    """A label of the features stage with its latents, the best one first."""

    label: str
    kind: str
    """`object`, `action` or `sound`; two kinds may have a label of one name."""
    latents: tuple[int, ...]


def by_label(folder: Path | None, n: int) -> list[LabelLatents]:
    """Return the `n` labels that a latent follows best on the train videos, each with the latents that follow it.

    The kinds of label that questions are about (objects, actions, sounds) take turns, because one kind that is easy to
    follow must not take all places. A label whose best latent is that of a label before it, as of a sound and the
    action that makes it, is passed over.

    Args:
        folder: of the features stage for this SAE; where that is not finished (None), the result is empty.
        n: number of labels.
    """
    if folder is None or n == 0:
        if n:
            logger.info("the features stage is not finished for this SAE, so no latent is taken from it")
        return []
    table = read_features_table(folder, "associations")
    if table is None:
        return []
    table = table[(table["split"] == "train") & table["kind"].isin(ASKED_KINDS)].dropna(subset="auroc")
    table = table.sort_values(["auroc", "latent", "label"], ascending=[False, True, True], kind="stable")
    table = table.drop_duplicates(["kind", "label", "latent"])
    best = table.drop_duplicates(["kind", "label"]).drop_duplicates("latent")
    turn = best.groupby("kind").cumcount()
    chosen = best.assign(turn=turn).sort_values("turn", kind="stable").head(n)
    out: list[LabelLatents] = []
    for kind, label in zip(chosen["kind"], chosen["label"], strict=True):
        own = table[(table["kind"] == kind) & (table["label"] == label)]
        following = own["auroc"] >= FOLLOWS_AUROC
        following.iloc[0] = True
        latents = tuple(int(latent) for latent in own["latent"][following])
        out.append(LabelLatents(label=str(label), kind=str(kind), latents=latents))
    return out


def targets(
    screen: pd.DataFrame,
    *,
    d_sae: int,
    given: Sequence[int],
    top: int,
    associated: Sequence[LabelLatents],
    set_size: int,
) -> list[Target]:
    """List the targets of the exact runs: single latents in the order of selection, the labels' sets, the screen's set.

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
    for one in associated:
        if one.latents[0] in active:
            chosen.setdefault(one.latents[0], "associated")
    found = [Target(id=str(latent), latents=(latent,), selected_by=reason) for latent, reason in chosen.items()]
    for one in associated:
        together = [latent for latent in one.latents if latent in active][:set_size]
        if len(together) > 1:
            found.append(
                Target(
                    id=_unused_id(one, associated, {target.id for target in found}),
                    latents=tuple(together),
                    selected_by="associated",
                    label=one.label,
                    label_kind=one.kind,
                )
            )
    together = by_predicted_cost(alive, set_size)
    if len(together) > 1:
        found.append(Target(id="set", latents=tuple(together), selected_by="screen"))
    return found


def _unused_id(one: LabelLatents, associated: Sequence[LabelLatents], used: Collection[str]) -> str:
    """Id of a label's set: with the kind where another kind has a label of that name, and never that of another."""
    shared = sum(other.label == one.label for other in associated) > 1
    found = f"set: {one.label} ({one.kind})" if shared else f"set: {one.label}"
    while found in used:
        found += " again"
    return found
