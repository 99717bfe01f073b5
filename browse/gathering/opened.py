"""A run's artefacts as they are now, read when they are needed.

A run may still be being written, so any of them may be missing. What is missing is left out; what is damaged is an
error that names the file, and so the shards that need it cannot be made.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64

from ask.opened import stages_of
from collect.artefact.config_json import read_config
from collect.artefact.folder import CONFIG_NAME
from collect.artefact.run_data import data_of_run
from collect.artefact.stage import SUMMARY_NAME
from collect.data.perception_test import Video
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.printable import printable
from collect.reading import MANIFEST_NAME, ActivationStore, VideoRecord
from features.codes import Codes
from features.moments import StoredSteps, describe_moments, moments_of
from features.reading import read_features_table, read_features_tables
from steer.reading import Target, read_effects_tables, read_item_tables, read_mechanism_tables, read_targets
from train_sae.opened import open_sae
from train_sae.reading import begun_saes, check_same_sae, finished_saes, read_summary

log = logging.getLogger(__name__)

State = Literal["finished", "unfinished", "missing"]
STAGES = ("profile", "collect", "train", "features", "steer")
_BASELINE = "baseline"
_WATCHED = (
    f"activations/{MANIFEST_NAME}",
    *(f"{stage}/*/{name}" for stage in ("sae", "features", "steer") for name in (CONFIG_NAME, SUMMARY_NAME)),
    f"profile/{SUMMARY_NAME}",
)


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Tables of the steer stage."""

    tables: Mapping[str, pd.DataFrame]
    targets: Mapping[str, Target]


class OpenedSae:
    """What a run holds about one SAE, or about the baseline of one.

    Args:
        run: the run.
        name: of the SAE's folders in the run.
        is_baseline: whether the codes of its baseline are meant.
    """

    def __init__(self, run: OpenedRun, name: str, *, is_baseline: bool = False) -> None:
        self.run = run
        self.name = name
        self.is_baseline = is_baseline
        self.folder = run.folder / "features" / name
        self._lock = threading.RLock()

    @property
    def has_features(self) -> bool:
        """Whether its latents have been described."""
        return self.run.state("features", self.name) == "finished" and self.run.store is not None

    @property
    def has_effects(self) -> bool:
        """Whether its latents have been edited."""
        return not self.is_baseline and self.run.state("steer", self.name) == "finished"

    @cached_property
    def baseline(self) -> OpenedSae | None:
        """The baseline that features compared it with."""
        if self.is_baseline or not self.has_features or not (self.folder / _BASELINE / "codes.zarr").is_dir():
            return None
        return OpenedSae(self.run, self.name, is_baseline=True)

    @cached_property
    def tables(self) -> Mapping[str, pd.DataFrame]:
        """Catalogue, associations and exemplars; without rows where they are not there."""
        check_same_sae(self.run.folder, {"features": self.folder})
        return read_features_tables(self.folder)[0]

    @cached_property
    def codes(self) -> Codes:
        """The latent activations of every stored token."""
        store = self.run.required_store
        folder = self.folder / _BASELINE if self.is_baseline else self.folder
        return Codes.open(folder / "codes.zarr", n_tokens=store.n_tokens)

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.codes.d_sae

    @cached_property
    def seed(self) -> int:
        """Seed of the features stage."""
        return int(read_config(self.folder, "features")["arguments"].get("seed", 0))

    @cached_property
    def decoder(self) -> Float32[np.ndarray, "latent d_out"] | None:
        """The decoder directions; None where the SAE is no longer there."""
        arguments = read_config(self.folder, "features")["arguments"]
        # An earlier version recorded no SAE where it was the only one.
        wanted = arguments.get("baseline" if self.is_baseline else "sae") or self.name
        try:
            sae = open_sae(self.run.folder, self.run.required_store, wanted, decoded=False).sae
        except UserError as error:
            log.warning("No decoder directions of %s: %s", self.name, error)
            return None
        return sae.W_dec.float().cpu().numpy()

    @cached_property
    def _moments(self) -> tuple[pd.DataFrame, Int64[np.ndarray, " latent_and_one"]] | None:
        table = read_features_table(self.folder / _BASELINE if self.is_baseline else self.folder, "moments")
        if table is None:
            return None
        return table, np.searchsorted(table["latent"].to_numpy(), np.arange(self.n_latents + 1))

    def moments(self, latents: range) -> pd.DataFrame:
        """The moments of some consecutive latents; those that features did not write are found as it finds them."""
        with self._lock:
            written = self._moments
        if written is not None:
            table, ends = written
            return table.iloc[int(ends[latents.start]) : int(ends[latents.stop])]
        numbers = np.arange(latents.start, latents.stop)
        found = moments_of(self.codes.by_latent(numbers), numbers, self.run.steps, seed=self.seed)
        return describe_moments(found, self.run.videos, self.run.held_out)

    @cached_property
    def effects(self) -> Effects | None:
        """Tables of the steer stage; None where it is not finished."""
        if not self.has_effects:
            return None
        check_same_sae(self.run.folder, {"steer": self.run.folder / "steer" / self.name})
        tables, _ = read_effects_tables(self.run.folder / "steer" / self.name)
        return Effects(tables=tables, targets=read_targets(tables))

    @cached_property
    def mechanisms(self) -> Mapping[str, pd.DataFrame]:
        """Doses, swaps and the other tables that show how a confirmed latent works."""
        return read_mechanism_tables(self.run.folder / "steer" / self.name)

    @cached_property
    def item_effects(self) -> Mapping[str, pd.DataFrame]:
        """Effects on single items: `sweep` and `effects`."""
        return read_item_tables(self.run.folder / "steer" / self.name)


class OpenedRun:
    """A run as it is now; `fingerprint` says whether it has changed since.

    Args:
        folder: the run folder.
        sae: name of the only SAE to show; all of them if None.
        data: folder of videos and annotations; where the run had them if None.
    """

    def __init__(self, folder: Path, sae: str | None = None, data: Path | None = None) -> None:
        self.folder = folder
        self.data = data
        self._wanted = sae
        self.fingerprint = fingerprint(folder)
        self._lock = threading.RLock()
        self._saes: dict[str, OpenedSae] = {}
        self.media: frozenset[str] | None = None
        """Ids of the videos whose clips and stills can be had; all whose files are there if None."""

    def has_media(self, video_id: str) -> bool:
        """Whether the clip and the stills of a video can be had."""
        return self.video_path(video_id) is not None if self.media is None else video_id in self.media

    def state(self, stage: str, sae: str | None = None) -> State:
        """How far a stage is.

        Args:
            stage: as on the command line.
            sae: of which SAE; any of them if None.
        """
        if stage in ("collect", "profile"):
            folders = [self.folder / ("activations" if stage == "collect" else stage)]
        else:
            above = self.folder / ("sae" if stage == "train" else stage)
            folders = sorted(above.glob("*/")) if sae is None else [above / sae]
        last = {"collect": MANIFEST_NAME, "train": "cfg.json"}.get(stage, SUMMARY_NAME)
        if any((folder / last).is_file() for folder in folders):
            return "finished"
        return "unfinished" if any((folder / CONFIG_NAME).is_file() for folder in folders) else "missing"

    @cached_property
    def store(self) -> ActivationStore | None:
        """The activations; None until they are complete."""
        folder = self.folder / "activations"
        return ActivationStore.open(folder) if (folder / MANIFEST_NAME).exists() else None

    @property
    def required_store(self) -> ActivationStore:
        """The activations.

        Raises:
            UserError: they are not complete.
        """
        if self.store is None:
            raise UserError(f"{printable(self.folder, 4096)} has no finished activations: run `video-sae collect`.")
        return self.store

    @property
    def videos(self) -> tuple[VideoRecord, ...]:
        """The collected videos."""
        return () if self.store is None else self.store.videos

    @cached_property
    def steps(self) -> StoredSteps:
        """Where each token lies."""
        return StoredSteps.of(self.videos)

    @cached_property
    def record_of(self) -> Mapping[str, VideoRecord]:
        """The collected videos by id."""
        return {video.video_id: video for video in self.videos}

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Ids of the held-out videos."""
        return held_out_ids((video.video_id, video.split) for video in self.videos)

    @cached_property
    def _annotated(self) -> tuple[Mapping[str, Video], str | None]:
        if self.store is None:
            return {}, None
        stages: dict[str, Path] = {}
        for name in self.sae_names:
            stages = stages_of(self.folder, name)
            if any((path / CONFIG_NAME).is_file() for path in stages.values()):
                break
        try:
            dataset = data_of_run(self.folder, self.store, self.data, stages).dataset
        except UserError as error:
            return {}, str(error)
        wanted = self.record_of
        return {video.video_id: video for video in dataset.videos if video.video_id in wanted}, None

    @property
    def annotations(self) -> Mapping[str, Video]:
        """What is annotated about the collected videos, by id."""
        with self._lock:
            return self._annotated[0]

    @property
    def data_missing(self) -> str | None:
        """Why there are no annotations; None if they were found."""
        with self._lock:
            return self._annotated[1]

    @cached_property
    def _paths(self) -> Mapping[str, Path]:
        annotated = self.annotations
        found: dict[str, Path] = {}
        for record in self.videos:
            video = annotated.get(record.video_id)
            paths = [None if video is None else video.path, Path(record.path)]
            path = next((path for path in paths if path is not None and path.is_file()), None)
            if path is not None:
                found[record.video_id] = path
        return found

    def video_path(self, video_id: str) -> Path | None:
        """The file of a collected video; None if it was gone when the run was opened."""
        with self._lock:
            return self._paths.get(video_id)

    @cached_property
    def sae_names(self) -> tuple[str, ...]:
        """Names of the SAEs' folders, in order."""
        described = [path.parent.name for path in self.folder.glob(f"features/*/{CONFIG_NAME}")]
        names = sorted({*begun_saes(self.folder), *finished_saes(self.folder), *described})
        return tuple(name for name in names if self._wanted in (None, name))

    def check(self) -> None:
        """Check that there is a run, and that what it holds belongs together.

        Raises:
            UserError: no stage has begun, or features or effects are those of another SAE than the one there.
        """
        if all(self.state(stage) == "missing" for stage in STAGES):
            raise UserError(
                f"{printable(self.folder, 4096)} is no run: no stage has begun there; give the folder of one with "
                "--run."
            )
        for name in self.sae_names:
            check_same_sae(self.folder, stages_of(self.folder, name))

    def sae(self, name: str, *, baseline: bool = False) -> OpenedSae | None:
        """What the run holds about an SAE, or about its baseline; None if it has none of that name."""
        with self._lock:
            if name not in self.sae_names:
                return None
            if name not in self._saes:
                self._saes[name] = OpenedSae(self, name)
            return self._saes[name].baseline if baseline else self._saes[name]

    def sae_facts(self, name: str) -> Mapping[str, object]:
        """Sizes and site of an SAE of the run, as far as its training is finished."""
        folder = self.folder / "sae" / name
        return read_summary(folder) if (folder / SUMMARY_NAME).is_file() else {}


def fingerprint(folder: Path) -> str:
    """A text that is another one once a stage has begun or has finished, or has been made again."""
    parts: list[str] = []
    for pattern in _WATCHED:
        for path in sorted(folder.glob(pattern)):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            parts.append(f"{path.relative_to(folder)} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(parts)
