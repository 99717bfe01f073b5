"""The shards `S/latent/K`: everything that the page of one latent shows, for 32 latents each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from browse.gathering.grouped import Grouped, records
from browse.gathering.latents.catalogue import LATENTS_PER_SHARD
from browse.gathering.latents.effects import LatentEffects
from browse.gathering.latents.neighbours import Neighbours
from browse.gathering.latents.vocabulary import Vocabulary
from browse.gathering.moments import shown_moment
from browse.gathering.opened import OpenedSae
from browse.gathering.profiles import MOST_HEAT, PlaceAndTime, histogram
from browse.gathering.rounding import rounded, row
from browse.shards import Shard, integers, objects
from features.moments import GROUPS

_ASSOCIATION = {
    "label": "label",
    "kind": "kind",
    "level": "level",
    "auroc": "auroc",
    "low": "auroc_low",
    "high": "auroc_high",
    "within": "within_video_auroc",
    "within_low": "within_low",
    "within_high": "within_high",
    "q": "q_value",
    "n_videos": "n_videos",
    "n_positive": "n_positive",
    "holds": "holds",
    "control_p95": "control_auroc_p95",
    "baseline_p95": "baseline_auroc_p95",
}


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How much the page of a latent holds; less where there are so many latents that an export would grow too large."""

    name: str
    most_heat: int
    """Patches of a heat map."""
    has_timeline: bool
    """Whether moments have the activation of every time step."""
    most_top: int
    """Moments of the top that are kept."""
    most_other: int
    """Moments of every other group."""
    most_listed: int
    """Associations, neighbours, tokens, effects and questions of each list."""


EVERYTHING = 1 << 30
FULL = Detail(
    name="full",
    most_heat=MOST_HEAT,
    has_timeline=True,
    most_top=EVERYTHING,
    most_other=EVERYTHING,
    most_listed=EVERYTHING,
)
BRIEF = Detail(name="brief", most_heat=0, has_timeline=False, most_top=1, most_other=1, most_listed=3)


class LatentShards:
    """Makes the shards of one SAE; what all of them need is read once.

    Args:
        sae: the SAE; its features are finished.
        vocabulary: reads decoder directions through the model's unembedding.
    """

    def __init__(self, sae: OpenedSae, vocabulary: Vocabulary) -> None:
        self._sae = sae
        self._run = sae.run
        self._vocabulary = vocabulary
        self._places = PlaceAndTime(sae.run.videos)
        self._neighbours = Neighbours(sae)
        self._effects = LatentEffects(sae)
        self._associations = _associations(sae)

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self._sae.n_latents // LATENTS_PER_SHARD)

    def shard(self, number: int, detail_of: Callable[[int], Detail] = lambda _: FULL) -> Shard:
        """The shard of the latents from `LATENTS_PER_SHARD` · `number` on.

        Args:
            number: of the shard.
            detail_of: how much it holds of a latent.
        """
        latents = range(number * LATENTS_PER_SHARD, min((number + 1) * LATENTS_PER_SHARD, self._sae.n_latents))
        numbers = np.arange(latents.start, latents.stop)
        codes = self._sae.codes.by_latent(numbers)
        moments: dict[int, list[dict[str, Any]]] = {}
        for moment in records(self._sae.moments(latents)):
            moments.setdefault(moment["latent"], []).append(moment)
        decoder = self._neighbours.by_decoder(latents)
        cofiring = self._neighbours.by_cofiring(latents)
        words = self._vocabulary.words(self._sae, latents)
        rows: list[dict[str, Any]] = []
        for place, latent in enumerate(latents):
            own = slice(int(codes.indptr[place]), int(codes.indptr[place + 1]))
            token, value = codes.indices[own].astype(np.int64), codes.data[own]
            shown = moments.get(latent, [])
            largest = float(value.max()) if len(value) else 0.0
            detail = detail_of(latent)
            page: dict[str, Any] = {
                "latent": latent,
                "detail": detail.name,
                "max_activation": rounded(largest),
                "moments": list(self._moments(shown, token, value, largest, detail)),
                "groups": _groups(shown),
                "histogram": histogram(value),
                "place": self._places.place(token, value),
                "time": self._places.time(token, value),
                "associations": self._associated(latent),
                "neighbours": {"decoder": decoder[place], "cofiring": cofiring[place]},
                "tokens": words[place],
                **self._effects.of(latent),
            }
            rows.append(page if detail.most_listed >= EVERYTHING else _shortened(page, detail))
        return Shard(columns={"latent": integers(numbers), "json": objects(rows)}, meta={"first": latents.start})

    def _moments(
        self,
        moments: Sequence[Mapping[str, Any]],
        token: Int64[np.ndarray, " token"],
        value: Float32[np.ndarray, " token"],
        largest: float,
        detail: Detail,
    ) -> Iterator[dict[str, Any]]:
        for moment in moments:
            if moment["rank"] < (detail.most_top if moment["group"] == "top" else detail.most_other):
                shown = shown_moment(self._run, moment, token, value, largest, detail.most_heat)
                yield shown if detail.has_timeline else {**shown, "per_frame": []}

    def _associated(self, latent: int) -> list[dict[str, Any]]:
        own = [] if self._associations is None else self._associations.rows(latent)
        if not own:
            return []
        about = self._sae.tables["catalogue"].iloc[latent]
        top = (about["top_label"], about["top_label_kind"], about["top_label_level"])
        second = (about["runner_up_label"], about["runner_up_kind"], about["runner_up_level"])
        found: list[dict[str, Any]] = []
        for values in own:
            key = (values["label"], values["kind"], values["level"])
            is_name = key == top and bool(about["labelled"])
            found.append(
                {**row(values, _ASSOCIATION), "is_name": is_name, "is_top": key == top, "runner_up": key == second}
            )
        return found


def _shortened(page: dict[str, Any], detail: Detail) -> dict[str, Any]:
    """A page with the first entries of each list only, and without histogram, places and times."""
    n = detail.most_listed
    lists = ("associations", "effects", "doses", "dose_response", "items", "claims", "mechanisms")
    return {
        **page,
        **{name: page[name][:n] for name in lists},
        "histogram": {"edges": [], "counts": []},
        "place": [],
        "time": [],
        "neighbours": {kind: found[:n] for kind, found in page["neighbours"].items()},
        "tokens": {**page["tokens"], "top": page["tokens"]["top"][:n], "bottom": page["tokens"]["bottom"][:n]},
    }


def _associations(sae: OpenedSae) -> Grouped | None:
    """The held-out associations by latent, the strongest first."""
    if sae.is_baseline:
        return None
    held = sae.tables["associations"]
    held = held[held["split"] == "held_out"]
    held = held.sort_values(["auroc", "label"], ascending=[False, True], kind="stable")
    return Grouped(held, "latent", list(_ASSOCIATION.values()))


def _groups(moments: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each group of a latent's moments stands for."""
    firsts = {moment["group"]: moment for moment in reversed(moments)}
    names = {
        "group": "group",
        "mass_share": "group_mass_share",
        "n_tokens": "group_n_tokens",
        "n_moments": "group_n_moments",
    }
    return [row(firsts[group], names) for group in GROUPS if group in firsts]
