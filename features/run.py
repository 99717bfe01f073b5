"""The features stage: SAE + store + annotations -> catalogue.

    RUN/features/SAE/
      codes.zarr             sparse latent activations of every stored token
      codes_by_latent.zarr   the same, latent by latent
      catalogue.parquet      one row per latent
      associations.parquet   one row per tested (latent, label) and split
      exemplars.parquet      top activating tokens of each latent
      combinations.parquet   with `--options combinations=N`: labels joined by AND, OR and NOT
      brightness.parquet     with `--options brightness=1`: how bright every sampled frame is
      moments.parquet        moments of each latent, from the top, from every fifth of its activations, at random
      media/                 pictures of the exemplars of some latents
      baseline/              with --baseline: the codes of the other SAE, and its moments
      config.json summary.json

`summary.json` is written last, and says what belongs to a finished folder (`collect.artefact.stage`).
"""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from collect.artefact.folder import write_table
from collect.artefact.lock import writing
from collect.artefact.run_data import RunData, data_of_run
from collect.artefact.stage import begin_or_resume, write_summary
from collect.artefact.table_input import empty_table
from collect.errors import UserError
from collect.process.device import resolve_device
from collect.process.ranks import Process
from collect.reading import ActivationStore
from features.activity import Activity, measure_activity
from features.association.associate import Associations, associate
from features.association.controls import Controls, encode_controls, latents_as_controls, matched_rates
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS, build_catalogue
from features.codes import BY_LATENT_NAME, Codes
from features.combinations.combine import COMBINATIONS, combine
from features.comparison import compare_with_baseline
from features.config import FeaturesConfig
from features.division import Division, joined_processes
from features.encoding import encode_store
from features.exemplars import describe_exemplars, top_tokens
from features.labels.brightness import TABLE, brightness_of
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import ASKED
from features.moments import MOMENTS, MOMENTS_NAME, describe_moments, find_moments
from features.pictures.media import choose_latents, draw_exemplars
from train_sae.opened import OpenedSae, open_sae

log = logging.getLogger(__name__)

STAGE = "features"
COMBINATIONS_NAME = "combinations.parquet"
TABLES = ("associations.parquet", "exemplars.parquet", MOMENTS_NAME, "catalogue.parquet")
CODES_NAME = "codes.zarr"
BASELINE_NAME = "baseline"
"""Folder of the other SAE's codes."""


def features(config: FeaturesConfig) -> Path:
    """Run the stage, or go on with it, and return its folder.

    Raises:
        UserError: there is no store or SAE, they do not belong together, the annotations are missing, malformed or
            others than those of the run, the folder was begun with other settings, or another process is writing it.
    """
    store = ActivationStore.open(config.run / "activations")
    store.require_whole_grids()
    opened = open_sae(config.run, store, config.sae, decoded=False)
    baseline = _open_baseline(config, store, opened)
    config = dataclasses.replace(config, sae=opened.argument, baseline=None if baseline is None else baseline.argument)
    folder = config.run / "features" / opened.name
    others = {STAGE: folder, "steer": config.run / "steer" / opened.name}
    with joined_processes(Process.of_environment()) as division, ExitStack() as held:
        read: list[RunData] = []

        def is_finished() -> bool:
            held.enter_context(writing(folder))
            data = data_of_run(config.run, store, config.data, others, own=STAGE)
            read.append(data)
            inputs = {
                "store": store.fingerprint,
                **opened.hashes(),
                "annotations": data.annotations,
            }
            if baseline is not None:
                inputs |= {f"baseline_{name}": value for name, value in baseline.hashes().items()}
            paths = {"run": config.run, "data": data.dataset.folder, "sae": opened.folder}
            ignore = ("run", "data", "device")
            return begin_or_resume(
                folder, STAGE, config, inputs, ignore=ignore, paths=paths, formerly=opened.formerly()
            )

        if not division.agree(is_finished):
            data = read[0] if read else data_of_run(config.run, store, config.data, others, own=STAGE)
            annotations = {video.video_id: video for video in data.dataset.videos}
            brightness = brightness_of(store.videos, annotations, folder, division) if config.brightness else None
            corpus = build_corpus(store.videos, annotations, min_videos=config.min_videos, brightness=brightness)
            _run(_Stage(config, store, corpus, division), opened, baseline, folder)
        division.meet()  # nobody leaves before the first process has written the tables
    return folder


def _open_baseline(config: FeaturesConfig, store: ActivationStore, opened: OpenedSae) -> OpenedSae | None:
    """The SAE to compare with.

    Raises:
        UserError: it cannot be used, reads another site, or is the very SAE.
    """
    if config.baseline is None:
        return None
    baseline = open_sae(config.run, store, config.baseline, decoded=False)
    if baseline.folder.resolve() == opened.folder.resolve():
        raise UserError(f"--baseline {config.baseline} is the SAE itself: give another one, such as a frozen_decoder.")
    if baseline.sae.site != opened.sae.site:
        raise UserError(
            f"--baseline {config.baseline} reads {baseline.sae.site}, the SAE {opened.sae.site}: give one of its site."
        )
    return baseline


@dataclass(frozen=True)
class _Stage:
    """What is the same for an SAE and its baseline."""

    config: FeaturesConfig
    store: ActivationStore
    corpus: Corpus
    division: Division

    def encode(self, opened: OpenedSae, folder: Path) -> tuple[Codes, Activity]:
        """Codes and activity of an SAE."""
        config, division = self.config, self.division
        codes = encode_store(
            self.store,
            opened.sae,
            folder,
            batch_size=config.batch_size,
            device=resolve_device(config.device),
            name=str(opened.folder),
            division=division,
        )
        return codes, measure_activity(codes, self.store.videos, division)

    def associate(
        self, opened: OpenedSae, codes: Codes, activity: Activity, baseline: Controls | None = None
    ) -> Associations:
        """Associations of an SAE, beside controls of its firing rates."""
        config = self.config
        controls = encode_controls(
            self.store,
            opened.sae.site,
            activity.firing_rate,
            n=config.controls,
            rng=np.random.default_rng([config.seed, 0]),
            batch_size=config.batch_size,
            division=self.division,
        )
        return associate(codes, controls, self.corpus, activity.firing_rate, config, self.division, baseline=baseline)


def _run(stage: _Stage, opened: OpenedSae, other: OpenedSae | None, folder: Path) -> None:
    config, store, corpus, division = stage.config, stage.store, stage.corpus, stage.division
    if not corpus.labels:
        log.warning("No label is shown by enough videos, so latents are not associated with anything.")
    codes, activity = stage.encode(opened, folder / CODES_NAME)
    compared: dict[str, Any] | None = None
    moments = {folder: find_moments(codes, store.videos, seed=config.seed, division=division)}
    if other is None:
        found = stage.associate(opened, codes, activity)
    else:
        (folder / BASELINE_NAME).mkdir(exist_ok=True)
        other_codes, other_activity = stage.encode(other, folder / BASELINE_NAME / CODES_NAME)
        moments[folder / BASELINE_NAME] = find_moments(other_codes, store.videos, seed=config.seed, division=division)
        rng = np.random.default_rng([config.seed, 3])
        rates = matched_rates(activity.firing_rate)
        others = latents_as_controls(other_codes, other_activity.firing_rate, rates, n=config.controls, rng=rng)
        found = stage.associate(opened, codes, activity, others)
        compared = {
            "sae": config.baseline,
            **compare_with_baseline(found, stage.associate(other, other_codes, other_activity), corpus),
        }
    combined: pd.DataFrame | None = None
    if config.combinations:
        combined = combine(codes, corpus, depth=config.combinations, fdr=config.fdr, division=division)
    decoder_norm = opened.sae.decoder_norm.double().cpu().numpy()
    catalogue = build_catalogue(activity, decoder_norm, found, corpus)
    held_out = {corpus.records[index].video_id for index in corpus.split(held_out=True)}
    tops = top_tokens(codes, store.videos, n=config.exemplars, per_video=config.exemplars_per_video, division=division)
    if not division.is_first:
        return
    exemplars = describe_exemplars(tops, store.videos, held_out)
    exemplars = draw_exemplars(exemplars, catalogue, choose_latents(catalogue, config.media), codes, corpus, folder)
    associations = found.table if len(found.table) else empty_table(ASSOCIATIONS)
    write_table(folder / "associations.parquet", associations, ASSOCIATIONS)
    write_table(folder / "exemplars.parquet", exemplars, EXEMPLARS)
    for place, found_there in moments.items():
        write_table(place / MOMENTS_NAME, describe_moments(found_there, store.videos, held_out), MOMENTS)
    write_table(folder / "catalogue.parquet", catalogue, CATALOGUE)
    if combined is not None:
        write_table(folder / COMBINATIONS_NAME, combined if len(combined) else empty_table(COMBINATIONS), COMBINATIONS)
    summary = summarise(config, activity, corpus, catalogue, associations)
    summary["baseline"] = compared
    pictures = [name for column in ("media", "media_frame") for name in exemplars[column].dropna() if name]
    made = [*TABLES, CODES_NAME, BY_LATENT_NAME, *([] if other is None else [BASELINE_NAME])]
    made += [] if combined is None else [COMBINATIONS_NAME]
    made += [f"{TABLE}.parquet"] if config.brightness else []
    write_summary(folder, summary, [*made, *pictures])
    log.info(
        "%s: %d of %d latents labelled (%d pairs tested).",
        folder,
        summary["n_labelled"],
        summary["n_latents"] - summary["n_dead"],
        summary["n_tested"],
    )


def summarise(
    config: FeaturesConfig, activity: Activity, corpus: Corpus, catalogue: pd.DataFrame, associations: pd.DataFrame
) -> dict[str, Any]:
    """Counts over the whole stage, and one entry per label that was tested, or that questions may be about.

    A label's best latent is the one with the highest AUROC on train among those that hold.
    """
    held = associations[associations["split"] == "held_out"]
    train = associations[associations["split"] == "train"]
    held = held.assign(train_auroc=train["auroc"].to_numpy())  # two rows per pair, in one order
    labels: list[dict[str, Any]] = []
    for label in corpus.all_labels():
        space, name = label.space, corpus.name(label)
        rows = held[(held["label"] == name) & (held["kind"] == space.kind) & (held["level"] == space.level)]
        if not len(rows) and space not in ASKED:
            continue
        holding = rows[rows["holds"].astype(bool)].sort_values(["train_auroc", "latent"], ascending=[False, True])
        labels.append(
            {
                "label": name,
                "kind": space.kind,
                "level": space.level,
                "n_tested": len(rows),
                "n_holding": len(holding),
                "best_latent": int(holding["latent"].iloc[0]) if len(holding) else None,
                "best_auroc": float(holding["auroc"].iloc[0]) if len(holding) else None,
            }
        )
    return {
        "n_tokens": activity.n_tokens,
        "n_videos_train": len(corpus.split(held_out=False)),
        "n_videos_held_out": len(corpus.split(held_out=True)),
        "n_latents": len(catalogue),
        "n_dead": int(catalogue["is_dead"].sum()),
        "l0": float(activity.firing_rate.sum()),
        "n_labels": len(corpus.all_labels()),
        "n_tested": len(held),
        "n_discoveries": int((held["q_value"] < config.fdr).sum()),
        "n_labelled": int(catalogue["labelled"].sum()),
        "labels": labels,
    }
