"""What a run holds, read for the report: every stage's tables and figures, and which of them are missing.

Missing tables are named and left out; a damaged one is an error, so that no page is made from it. This module only
reads; what the tables mean is in `report.verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ask.reading import picked_site, read_profile_table
from collect.artefact.config_json import read_config
from collect.artefact.folder import CONFIG_NAME, read_object
from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.artefact.stage import SUMMARY_NAME
from collect.data.split import held_out_ids
from collect.errors import UserError
from collect.printable import printable
from collect.reading import MANIFEST_NAME, ActivationStore
from features.reading import read_features_table, read_features_tables
from steer.reading import Target, read_effects_tables, read_targets
from train_sae.opened import name_of_wanted
from train_sae.reading import METRICS_NAME, begun_saes, finished_saes, read_metrics, read_summary

_TRAINING_COUNTS = ("d_in", "d_sae", "k", "n_steps", "n_training_tokens", "n_train_tokens")
_FEATURE_COUNTS = ("n_latents", "n_dead", "n_labelled", "n_tested", "n_labels")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the run."""

    name: str
    """As on the command line."""
    folder: Path
    state: Literal["finished", "unfinished", "missing"]
    config: Mapping[str, Any]
    """Its config.json; empty if there is none."""

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
    screens: pd.DataFrame
    latent_subjects: pd.DataFrame
    targets: Mapping[str, Target]
    controls: pd.DataFrame
    target_subjects: pd.DataFrame
    summary: pd.DataFrame
    claims: pd.DataFrame
    dissociations: pd.DataFrame
    mechanisms: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Features:
    """Tables of the features stage."""

    folder: Path
    catalogue: pd.DataFrame
    associations: pd.DataFrame
    exemplars: pd.DataFrame
    combinations: pd.DataFrame | None
    """None where they were not asked for."""
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
    gaps: tuple[str, ...] = ()
    """What finished stages lack, as sentences."""

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
        UserError: no stage is finished, there are several SAEs and none is named, or an artefact is damaged or does
            not belong with the others.
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
    gaps = [
        _gap(stage.folder / CONFIG_NAME, stage.name, "this page does not say how that stage was run")
        for stage in stages
        if stage.finished and not stage.config
    ]
    return Record(
        run=run,
        sae_name=name,
        stages=stages,
        store=_store(finished["collect"], gaps) if "collect" in finished else None,
        training=_training(finished["train"], gaps) if "train" in finished else None,
        profile=_profile(finished["profile"], gaps) if "profile" in finished else None,
        features=_features(finished["features"], gaps) if "features" in finished else None,
        effects=_effects(finished["steer"], gaps) if "steer" in finished else None,
        gaps=tuple(gaps),
    )


def _sae_name(run: Path, sae: str | None) -> str | None:
    if sae is None and not finished_saes(run):
        begun = begun_saes(run)  # the page then says that its training is not finished
        return begun[0] if begun else None
    return name_of_wanted(run, sae)


def _stage(name: str, folder: Path, last_file: str) -> Stage:
    begun = (folder / CONFIG_NAME).exists()
    done = (folder / last_file).exists()
    return Stage(
        name=name,
        folder=folder,
        state="finished" if done else "unfinished" if begun else "missing",
        config=read_config(folder, name) if begun else {},
    )


def _gap(path: Path, stage: str, without: str) -> str:
    return f"{_name(path)} is missing, so {without}: run `video-sae {stage}` again."


def _name(path: Path) -> str:
    """A file of a stage as the page names it, which does not change if the run is moved."""
    return printable(f"{path.parent.parent.name}/{path.parent.name}/{path.name}", 400)


def _store(folder: Path, gaps: list[str]) -> ActivationStore | None:
    manifest: object = read_json(folder / MANIFEST_NAME, "collect again, or restore it from an archive")
    if isinstance(manifest, dict) and "archived" in manifest:
        gaps.append(
            f"{_name(folder / MANIFEST_NAME)} is that of an archive, so this page does not describe the activations: "
            "run `video-sae archive --restore` to bring them back."
        )
        return None
    return ActivationStore.open(folder)


def _training(folder: Path, gaps: list[str]) -> Training:
    summary = read_summary(folder)
    path = printable(folder / SUMMARY_NAME, 4096)
    fields = Fields(summary, path, f"delete {path} and run `video-sae train` again")
    for name in _TRAINING_COUNTS:
        fields.integer(name)
    lines = read_metrics(folder, fields.integer("n_steps"))
    if not lines:
        gaps.append(_gap(folder / METRICS_NAME, "train", "this page has no chart of the training"))
    return Training(summary=summary, curve=pd.DataFrame(lines))


def _profile(folder: Path, gaps: list[str]) -> Profile | None:
    table = read_profile_table(folder.parent)
    site = picked_site(folder.parent)
    if table is None or not len(table):
        gaps.append(_gap(folder / "profile.parquet", "profile", "this page has no site profile"))
        return None
    return Profile(site=site, table=table)


def _features(folder: Path, gaps: list[str]) -> Features | None:
    tables, missing = read_features_tables(folder)
    path = folder / SUMMARY_NAME
    remedy = f"delete {printable(path, 4096)} and run `video-sae features` again"
    summary = read_object(path, remedy)
    fields = Fields(summary, printable(path, 4096), remedy)
    for name in _FEATURE_COUNTS:
        fields.integer(name)
    without = {
        "catalogue": "this page does not show what latents respond to",
        "associations": "it lists no associations",
        "exemplars": "it has no pictures",
    }
    gaps += [_gap(folder / f"{name}.parquet", "features", without[name]) for name in missing]
    if not len(tables["catalogue"]):
        if "catalogue" not in missing:
            gaps.append(f"{_name(folder / 'catalogue.parquet')} has no rows, so {without['catalogue']}.")
        return None
    combinations = read_features_table(folder, "combinations")
    return Features(folder=folder, summary=summary, combinations=combinations, **tables)


def _effects(folder: Path, gaps: list[str]) -> Effects:
    tables, missing = read_effects_tables(folder)
    without = {
        "items": "the model’s answers are not shown",
        "baselines": "the model’s answers are not shown",
        "screen": "it is not known how many latents were screened",
        "screens": "it is not known how far the screens can be trusted",
        "latent_subjects": "it is not shown what every latent does on the train videos",
        "targets": "sets of latents are shown without their labels",
        "controls": "single controls are not drawn",
        "target_subjects": "effects on each subject are not shown",
        "summary": "the effects of latents are not shown",
        "claims": "nothing is claimed about effects",
        "dissociations": "double dissociations are not listed",
        "mechanisms": "it is not said how latents do what they do",
    }
    gaps += [_gap(folder / f"{name}.parquet", "steer", without[name]) for name in missing]
    return Effects(**{**tables, "targets": read_targets(tables)})
