"""What a run holds, read for the report: every stage's tables and figures, and which stages are missing.

Reading only; what the tables mean is in `steer.findings`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd

from collect.artefact import CONFIG_NAME, read_config, read_table
from collect.errors import UserError
from collect.split import held_out_ids
from collect.store import MANIFEST_NAME, ActivationStore
from train_sae.opened import split_site, stage_name
from train_sae.run_log import METRICS_NAME
from train_sae.sae import find_sae

SUMMARY_NAME = "summary.json"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the run."""

    name: str
    """As on the command line."""
    folder: Path
    state: Literal["finished", "unfinished", "missing"]
    config: Mapping[str, Any]
    """Its config.json; empty where there is none."""

    @property
    def finished(self) -> bool:
        """Whether its last file is there."""
        return self.state == "finished"


@dataclass(frozen=True, kw_only=True)
class Effects:
    """Tables of the steer stage."""

    items: pd.DataFrame
    baselines: pd.DataFrame
    screen: pd.DataFrame
    controls: pd.DataFrame
    summary: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Features:
    """Tables of the features stage."""

    folder: Path
    catalogue: pd.DataFrame
    associations: pd.DataFrame
    exemplars: pd.DataFrame
    summary: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Figures of the train stage."""

    summary: Mapping[str, Any]
    curve: pd.DataFrame
    """One row per line of metrics.jsonl."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Table of the profile stage and the site that it picked."""

    site: str
    table: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Record:
    """Everything that the report is made from; a stage that is not finished is None."""

    run: Path
    sae_name: str | None
    stages: tuple[Stage, ...]
    store: ActivationStore | None
    training: Training | None
    profile: Profile | None
    features: Features | None
    effects: Effects | None

    def stage(self, name: str) -> Stage:
        """The stage of that name."""
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def held_out(self) -> frozenset[str]:
        """Ids of the collected videos that are held out."""
        videos = self.store.videos if self.store is not None else ()
        return held_out_ids((video.video_id, video.split) for video in videos)


def read_record(run: Path, sae: str | None = None) -> Record:
    """Read a run.

    Args:
        run: the run folder.
        sae: name of the SAE; may be left out when there is only one.

    Raises:
        UserError: no stage is finished, there are several SAEs and none is named, or an artefact is damaged.
    """
    name = _sae_name(run, sae)
    of_sae = name or "."
    stages = (
        _stage("profile", run / "profile", SUMMARY_NAME),
        _stage("collect", run / "activations", MANIFEST_NAME),
        _stage("train", run / "sae" / of_sae, SUMMARY_NAME),
        _stage("features", run / "features" / of_sae, SUMMARY_NAME),
        _stage("steer", run / "steer" / of_sae, SUMMARY_NAME),
    )
    finished = {stage.name: stage.folder for stage in stages if stage.finished}
    if not finished:
        raise UserError(
            f"{run} holds no finished stage to report on: run `video-sae collect --out {run} …` first, "
            "or name another --run."
        )
    return Record(
        run=run,
        sae_name=name,
        stages=stages,
        store=ActivationStore.open(finished["collect"]) if "collect" in finished else None,
        training=_training(finished["train"]) if "train" in finished else None,
        profile=_profile(finished["profile"]) if "profile" in finished else None,
        features=_features(finished["features"]) if "features" in finished else None,
        effects=_effects(finished["steer"]) if "steer" in finished else None,
    )


def _sae_name(run: Path, sae: str | None) -> str | None:
    if sae is None and not any((run / "sae").glob("*/cfg.json")):
        # An SAE whose training has begun has a config.json only; the page then says that it is not finished.
        begun = sorted(path.parent.name for path in (run / "sae").glob(f"*/{CONFIG_NAME}"))
        return begun[0] if begun else None
    return stage_name(run, find_sae(run, split_site(sae)[0]))


def _stage(name: str, folder: Path, last_file: str) -> Stage:
    begun = (folder / CONFIG_NAME).is_file()
    done = (folder / last_file).is_file()
    return Stage(
        name=name,
        folder=folder,
        state="finished" if done else "unfinished" if begun else "missing",
        config=read_config(folder, name) if begun else {},
    )


def _training(folder: Path) -> Training:
    path = folder / METRICS_NAME
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    try:
        rows = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise UserError(f"{path} holds a line that is not JSON ({error}): delete that line.") from None
    return Training(summary=read_json(folder / SUMMARY_NAME), curve=pd.DataFrame(rows))


def _profile(folder: Path) -> Profile:
    site = str(read_json(folder / SUMMARY_NAME).get("site", ""))
    return Profile(site=site, table=read_table(folder / "profile.parquet"))


def _features(folder: Path) -> Features:
    tables = {name: read_table(folder / f"{name}.parquet") for name in ("catalogue", "associations", "exemplars")}
    return Features(folder=folder, summary=read_json(folder / SUMMARY_NAME), **tables)


def _effects(folder: Path) -> Effects:
    names = ("items", "baselines", "screen", "controls", "summary")
    return Effects(**{name: read_table(folder / f"{name}.parquet") for name in names})


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a stage wrote.

    Raises:
        UserError: the file is not a JSON object.
    """
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete {path.parent} and run its stage again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object: delete {path.parent} and run its stage again.")
    return cast("dict[str, Any]", content)
