"""What is run exactly, and in which order: the leaders of the screens, and edits drawn at random from all others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from steer.screens.estimates import ESTIMATES

LEADERS_AT_ONCE, DRAWN_AT_ONCE = 12, 96
"""Latents and drawn edits of one lot: what is lost when a sweep is killed, and how finely it keeps its budget."""
MOST_LOTS = 256
"""With more latents than these hold, lots are larger: every lot opens every video."""
MOST_DRAWN = 10_000
"""Edits after which no more are drawn at random."""
STRATA = 16
"""Groups of edits of like estimated effect, from which the random ones are drawn in turns."""

Edit = tuple[int, str]
"""One latent in one video."""


@dataclass(frozen=True, kw_only=True)
class Lot:
    """What is run at once."""

    latents: tuple[int, ...]
    """Leaders, in every video where they fire."""
    edits: tuple[Edit, ...]
    """Drawn ones."""


def order_of(estimated: pd.DataFrame) -> list[int]:
    """All latents of the screens, the most promising first.

    Subjects give their latents by |estimate|, in turns and in proportion to their questions: a subject with twice the
    questions gives two latents where another gives one. Each screen gives its own, in the same turns.

    Args:
        estimated: from `with_estimates`.
    """
    counting = estimated[estimated["counting"].astype(bool)]
    n_items = counting.groupby("subject")["item"].nunique()
    tables: list[pd.DataFrame] = []
    for priority, column in enumerate(ESTIMATES.values()):
        known = counting.dropna(subset=column)
        size = known.groupby(["subject", "latent"], sort=True)[column].sum().abs()
        rank = size.groupby("subject").rank(method="first", ascending=False)
        turn = rank / n_items.reindex(rank.index, level="subject")
        tables.append(pd.DataFrame({"turn": turn, "size": size, "priority": priority}).reset_index())
    keys = ["turn", "priority", "size", "latent"]
    first = pd.concat(tables).sort_values(keys, ascending=[True, True, False, True], kind="stable")
    found = [int(latent) for latent in first["latent"].drop_duplicates()]
    return found + sorted({int(latent) for latent in estimated["latent"]} - set(found))


def drawn_of(estimated: pd.DataFrame, seed: int) -> list[Edit]:
    """Edits in videos with counting questions, in an order of which every beginning is a stratified random sample.

    Args:
        estimated: from `with_estimates`.
        seed: of the draw.
    """
    counting = estimated[estimated["counting"].astype(bool)]
    size = counting["attribution"].abs().groupby([counting["latent"], counting["video_id"]], sort=True).max()
    ordered = size.sort_values(ascending=False, kind="stable").index
    generator = np.random.default_rng([seed, 1])
    strata = [generator.permutation(part) for part in np.array_split(np.arange(len(ordered)), STRATA)]
    rounds = itertools.zip_longest(*strata)
    places = [int(x) for each in rounds for x in generator.permutation([x for x in each if x is not None])]
    return [(int(ordered[place][0]), str(ordered[place][1])) for place in places[:MOST_DRAWN]]


def lots_of(order: Sequence[int], drawn: Sequence[Edit]) -> list[Lot]:
    """All latents in lots, with drawn edits of those that have not led yet beside them.

    Args:
        order: all latents, the most promising first.
        drawn: edits, in the order of the draw.
    """
    times = -(-len(order) // (LEADERS_AT_ONCE * MOST_LOTS)) if len(order) else 1
    n_leaders, n_drawn = times * LEADERS_AT_ONCE, times * DRAWN_AT_ONCE
    left = iter(drawn)
    lots: list[Lot] = []
    for start in range(0, len(order), n_leaders):
        led = set(order[: start + n_leaders])
        edits = tuple(itertools.islice((edit for edit in left if edit[0] not in led), n_drawn))
        lots.append(Lot(latents=tuple(order[start : start + n_leaders]), edits=edits))
    return lots
