"""All shards of a run by name: which there are, and how each is made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from browse.gathering.blind import blind_shards
from browse.gathering.debt import DebtShards
from browse.gathering.latents.catalogue import LATENTS_PER_SHARD, label_key, latents_shard
from browse.gathering.latents.pages import BRIEF, FULL, LatentShards
from browse.gathering.latents.vocabulary import Vocabulary
from browse.gathering.opened import OpenedRun, OpenedSae
from browse.gathering.overview import run_shard, videos_shard
from browse.gathering.tasks import tasks_shard
from browse.gathering.videos import FiringShards, VideoShards
from browse.names import BASELINE_SUFFIX, part_of
from browse.shards import Shard


class Library:
    """The shards of a run as it is when this is made. Shards may be asked for from several threads.

    Args:
        run: the run.
    """

    def __init__(self, run: OpenedRun) -> None:
        self.run = run
        self.brief: dict[str, frozenset[int]] = {}
        """Latents of which only the most important is told, by the name of their SAE in shards."""
        self._lock = threading.RLock()
        self._vocabulary = Vocabulary(run)
        self._saes = {part_of(name): name for name in run.sae_names}
        self._of_sae: dict[str, _SaeShards] = {}

    def names(self) -> Iterator[str]:
        """Names of all shards that can be made now."""
        yield from ("run", "videos", "tasks")
        yield from (f"video/{part}" for part in self._videos.parts)
        for key in self.sae_keys():
            yield from (f"{key}/{rest}" for rest in self._shards_of(key).names())

    def wanted_first(self) -> Iterator[str]:
        """The shards that somebody who opens the page is likely to look at, in that order."""
        yield from ("run", "videos")
        for key in self.sae_keys():
            yield f"{key}/latents"
        yield "tasks"
        for key in self.sae_keys():
            yield from (f"{key}/latent/{number}" for number in self._shards_of(key).by_interest())

    def sae_keys(self) -> list[str]:
        """The names, in shards, of the SAEs and baselines whose latents have been described."""
        keys: list[str] = []
        for key, name in self._saes.items():
            sae = self.run.sae(name)
            if sae is not None and sae.has_features:
                keys += [key, *([f"{key}{BASELINE_SUFFIX}"] if sae.baseline is not None else [])]
        return keys

    def sae(self, key: str) -> OpenedSae | None:
        """The SAE, or baseline, of a name in shards; None where its latents have not been described."""
        name = self._saes.get(key.removesuffix(BASELINE_SUFFIX))
        sae = None if name is None else self.run.sae(name, baseline=key.endswith(BASELINE_SUFFIX))
        return sae if sae is not None and sae.has_features else None

    def shard(self, name: str) -> Shard | None:
        """Make a shard; None where there is none of that name.

        Raises:
            UserError: an artefact that it needs is damaged.
        """
        with self._lock:  # what is read for one shard is read once, and NumPy uses all cores as it is
            if name == "run":
                return run_shard(self.run)
            if name == "videos":
                return videos_shard(self.run)
            if name == "tasks":
                return tasks_shard(self._described)
            key, _, rest = name.partition("/")
            if key == "video":
                return self._videos.shard(rest)
            return None if self.sae(key) is None else self._shards_of(key).shard(rest)

    @property
    def _described(self) -> dict[str, OpenedSae]:
        """The SAEs, without baselines, whose latents have been described."""
        found = {key: self.sae(key) for key in self._saes}
        return {key: sae for key, sae in found.items() if sae is not None}

    @cached_property
    def _videos(self) -> VideoShards:
        return VideoShards(self.run, self._described)

    def _shards_of(self, key: str) -> _SaeShards:
        with self._lock:
            if key not in self._of_sae:
                sae = self.sae(key)
                assert sae is not None, "only SAEs with features are asked for"
                self._of_sae[key] = _SaeShards(sae, key, self)
            return self._of_sae[key]

    def interest(self, key: str) -> Float64[np.ndarray, " latent"]:
        """How much each latent of an SAE is likely to be looked at."""
        return self._shards_of(key).interest()

    @property
    def vocabulary(self) -> Vocabulary:
        """Reads decoder directions."""
        return self._vocabulary

    @property
    def videos(self) -> VideoShards:
        """The videos by their names in shards."""
        return self._videos


class _SaeShards:
    """The shards of one SAE, whose names are those after `S/`."""

    def __init__(self, sae: OpenedSae, key: str, library: Library) -> None:
        self._sae = sae
        self._key = key
        self._library = library

    def names(self) -> Iterator[str]:
        """Names of all of them."""
        yield "latents"
        yield from (f"latent/{number}" for number in range(self._latents.n_shards))
        yield from (f"video/{part}" for part in self._library.videos.parts)
        if not self._sae.is_baseline:
            yield from ("blind", "blind-key")
            yield from (f"debt/{key}" for key in self._labels)

    def by_interest(self) -> list[int]:
        """The shards of latents, those with edited and with named latents first."""
        firsts = np.arange(0, self._sae.n_latents, LATENTS_PER_SHARD)
        return np.argsort(-np.add.reduceat(self.interest(), firsts), kind="stable").tolist()

    def interest(self) -> Float64[np.ndarray, " latent"]:
        """How much a latent is likely to be looked at: edited ones first, then named ones by AUROC, then others."""
        sae = self._sae
        n_active = sae.codes.n_active()
        interest = n_active / max(int(n_active.max(initial=0)), 1)
        if not sae.is_baseline:
            catalogue = sae.tables["catalogue"]
            score = catalogue["top_auroc"].fillna(0.0).to_numpy(dtype=np.float64)
            interest += np.where(catalogue["labelled"], 10 + 10 * score, score)
        for target in sae.effects.targets.values() if sae.effects is not None else ():
            interest[list(target.latents)] += 1000.0 / len(target.latents)
        return interest

    def shard(self, rest: str) -> Shard | None:
        """Make one; None where there is none of that name."""
        kind, _, which = rest.partition("/")
        make: Callable[[str], Shard | None] | None = {
            "latents": lambda which: None if which else latents_shard(self._sae),
            "latent": self._latent,
            "video": self._video,
            "blind": lambda which: None if which else self._blind[0],
            "blind-key": lambda which: None if which else self._blind[1],
            "debt": self._debt,
        }.get(kind)
        if make is None or (self._sae.is_baseline and kind in ("blind", "blind-key", "debt")):
            return None
        return make(which)

    def _latent(self, which: str) -> Shard | None:
        if not (which.isascii() and which.isdigit() and len(which) < 9) or int(which) >= self._latents.n_shards:
            return None
        brief = self._library.brief.get(self._key, frozenset())
        return self._latents.shard(int(which), lambda latent: BRIEF if latent in brief else FULL)

    def _video(self, which: str) -> Shard | None:
        record = self._library.videos.record(which)
        return None if record is None else self._firing.shard(record)

    def _debt(self, which: str) -> Shard | None:
        label = self._labels.get(which)
        return None if label is None else self._debts.shard(*label)

    @cached_property
    def _labels(self) -> dict[str, tuple[str, str]]:
        """Labels that are names of latents, by their names in shards."""
        named = self._sae.tables["catalogue"]
        named = named[named["labelled"]]
        pairs = zip(named["top_label"], named["top_label_kind"], strict=True)
        return {label_key(str(label), str(kind)): (str(label), str(kind)) for label, kind in sorted(set(pairs))}

    @cached_property
    def _latents(self) -> LatentShards:
        return LatentShards(self._sae, self._library.vocabulary)

    @cached_property
    def _firing(self) -> FiringShards:
        return FiringShards(self._sae)

    @cached_property
    def _debts(self) -> DebtShards:
        return DebtShards(self._sae)

    @cached_property
    def _blind(self) -> tuple[Shard, Shard]:
        return blind_shards(self._sae, self._key)
