"""What is run on held-out videos: given latents, the sweep's best per subject, those of the best labels, and sets.

Selection uses train videos only, so that the held-out videos can confirm. Every target has one subject, the one whose
questions it is held against; a latent that leads for several subjects is a target for each.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ask.questions import Item
from collect.errors import UserError
from features.catalogue import ASKED_KINDS
from features.reading import read_features_table

logger = logging.getLogger(__name__)

ENOUGH_VIDEOS = 6
"""Videos from which a sign-flip test can reach 0.05: 2 / 2^6 = 0.03."""
OTHERS_SHARE = 0.25
"""Most that other questions may move, as a share of the effect on the matched ones, where an effect is specific."""
MOST_IN_SET = 6
"""Most latents of a set that is edited together."""
FOLLOWS_AUROC = 0.75
"""AUROC on train videos from which a latent counts among those of a label."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Latents that are edited together."""

    id: str
    """Its key in every table; made to be read, and never taken apart."""
    latents: tuple[int, ...]
    selected_by: str
    """`given`, `sweep` or `associated`."""
    subject: str
    """Subject whose questions it is held against."""
    train_delta_margin: float | None = None
    """Effect on these questions in the train videos by which it was chosen; None where that was not run."""
    label: str | None = None
    """The label whose latents they are; None for a single latent and for the set of the most costly."""
    label_kind: str | None = None

    @property
    def is_set(self) -> bool:
        """Whether several latents are edited together."""
        return len(self.latents) > 1


def confirmable(items: Sequence[Item]) -> tuple[str, ...]:
    """Subjects of which enough held-out videos ask for a test to find anything; where there are none, all of them."""
    videos: dict[str, set[str]] = {}
    for item in items:
        if item.held_out and item.subject is not None:
            videos.setdefault(item.subject, set()).add(item.video_id)
    enough = sorted(subject for subject, of in videos.items() if len(of) >= ENOUGH_VIDEOS)
    return tuple(enough or sorted(videos))


class TrainEffects:
    """What the sweep found per latent and subject on the train videos, for the choice of targets."""

    def __init__(self, table: pd.DataFrame, subjects: Collection[str]) -> None:
        """Keep the subjects that held-out videos ask about.

        Args:
            table: latent_subjects.parquet.
            subjects: the subjects that can be confirmed.
        """
        own = table[(table["scope"] == "subject") & table["name"].isin(list(subjects))]
        exact = own["method"] == "exact"
        self.subjects = tuple(sorted(subjects))
        others = own[["delta_margin_other", "delta_margin_noncounting"]].abs().max(axis=1).fillna(0.0)
        # A latent that was not reached is ranked by its estimate, which says nothing about other questions.
        effect = own["delta_margin"].where(exact, own["estimate"])
        lead = effect.abs() - others.where(exact, 0.0)
        clear = exact & (own["delta_margin_low"] * own["delta_margin_high"] > 0)
        clear &= others <= OTHERS_SHARE * effect.abs()
        self._table = own.assign(effect=effect, lead=lead, exact=exact, clear=clear)
        self._effects = self._table.pivot_table(index="latent", columns="name", values="effect", aggfunc="first")

    def leading(self, subject: str, n: int) -> list[int]:
        """Up to `n` latents whose effect on a subject's questions exceeds that on all others most; exact ones first.

        Where some are clear (their interval leaves out zero, and other questions move by a quarter of it at most), only
        these: every latent that goes on makes the test of all others of its subject stricter.
        """
        own = self._table[(self._table["name"] == subject) & (self._table["lead"] > 0)]
        own = own[own["clear"]] if own["clear"].any() else own
        ranked = own.sort_values(["exact", "lead", "latent"], ascending=[False, False, True], kind="stable")
        return [int(latent) for latent in ranked["latent"].head(n)]

    def effect(self, latents: Sequence[int], subject: str) -> float | None:
        """Summed effect of some latents on a subject's questions; None where none of them fires."""
        known = [latent for latent in latents if latent in self._effects.index]
        if not known or subject not in self._effects:
            return None
        return float(self._effects.loc[known, subject].fillna(0.0).sum())

    def subject_of(self, latents: Sequence[int]) -> str:
        """The subject whose questions some latents move most, by the sum of their effects."""
        sizes = {subject: abs(self.effect(latents, subject) or 0.0) for subject in self.subjects}
        return max(self.subjects, key=lambda subject: sizes[subject])


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
    train: TrainEffects,
    *,
    d_sae: int,
    given: Sequence[int],
    top: int,
    associated: Sequence[LabelLatents],
) -> list[Target]:
    """List the targets of the held-out runs: single latents by selection, the labels' sets, the set of the most costly.

    A latent selected twice for one subject counts for the first of: given, sweep, associated. One that never fires on
    the evaluated videos is left out unless given. Without a `top` there is no set of the most costly latents.

    Raises:
        UserError: a given latent is not one of the SAE's.
    """
    beyond = [latent for latent in given if latent >= d_sae]
    if beyond:
        raise UserError(f"--latents {beyond[0]} does not exist: this SAE has the latents 0 to {d_sae - 1}.")
    alive = screen[screen["status"] == "screened"]
    active = set(alive["latent"])
    chosen: dict[tuple[int, str], str] = {(latent, train.subject_of([latent])): "given" for latent in given}
    for subject in train.subjects:
        for latent in train.leading(subject, top):
            chosen.setdefault((latent, subject), "sweep")
    for one in associated:
        if one.latents[0] in active:
            chosen.setdefault((one.latents[0], train.subject_of(one.latents[:1])), "associated")
    found: list[Target] = []

    def add(name: str, latents: tuple[int, ...], subject: str, reason: str, of: LabelLatents | None = None) -> None:
        found.append(
            Target(
                id=name,
                latents=latents,
                selected_by=reason,
                subject=subject,
                train_delta_margin=train.effect(latents, subject),
                label=None if of is None else of.label,
                label_kind=None if of is None else of.kind,
            )
        )

    for (latent, subject), reason in chosen.items():
        is_first = all(str(latent) != target.id for target in found)
        add(str(latent) if is_first else f"{latent} on {subject}", (latent,), subject, reason)
    for one in associated:
        together = tuple(latent for latent in one.latents if latent in active)[:MOST_IN_SET]
        if len(together) > 1:
            name = _unused_id(one, associated, {target.id for target in found})
            add(name, together, train.subject_of(together), "associated", one)
    together = tuple(by_predicted_cost(alive, MOST_IN_SET if top else 0))
    if len(together) > 1:
        add("set", together, train.subject_of(together), "sweep")
    return found


def _unused_id(one: LabelLatents, associated: Sequence[LabelLatents], used: Collection[str]) -> str:
    """Id of a label's set: with the kind where another kind has a label of that name, and never that of another."""
    shared = sum(other.label == one.label for other in associated) > 1
    found = f"set: {one.label} ({one.kind})" if shared else f"set: {one.label}"
    while found in used:
        found += " again"
    return found
