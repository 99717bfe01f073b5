"""The features stage: SAE + store + annotations -> catalogue.

    RUN/features/SAE/
      codes.zarr             sparse latent activations of every stored token
      codes_by_latent.zarr   the same, latent by latent
      catalogue.parquet      one row per latent
      associations.parquet   one row per tested (latent, label) and split
      exemplars.parquet      top activating tokens of each latent
      media/                 pictures of the exemplars of some latents
      config.json summary.json

`summary.json` is written last, and says what belongs to a finished folder (`collect.artefact.stage`).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from collect.artefact.folder import file_hash, write_table
from collect.artefact.lock import writing
from collect.artefact.run_data import RunData, data_of_run
from collect.artefact.stage import begin_or_resume, write_summary
from collect.artefact.table_input import empty_table
from collect.data.perception_test import Video
from collect.process.device import resolve_device
from collect.process.ranks import Process
from collect.reading import MANIFEST_NAME, ActivationStore
from features.activity import Activity, measure_activity
from features.association.associate import Associations, associate
from features.association.controls import encode_controls
from features.association.selection import Selection
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS, build_catalogue
from features.codes import BY_LATENT_NAME
from features.config import FeaturesConfig
from features.division import Division, joined_processes
from features.encoding import encode_store
from features.exemplars import describe_exemplars, top_tokens
from features.labels.corpus import Corpus, build_corpus
from features.pictures.media import choose_latents, draw_exemplars
from train_sae.opened import OpenedSae, open_sae

log = logging.getLogger(__name__)

STAGE = "features"
TABLES = ("associations.parquet", "exemplars.parquet", "catalogue.parquet")
CODES_NAME = "codes.zarr"


def features(config: FeaturesConfig) -> Path:
    """Run the stage, or go on with it, and return its folder.

    Raises:
        UserError: there is no store or SAE, they do not belong together, the annotations are missing, malformed or
            others than those of the run, the folder was begun with other settings, or another process is writing it.
    """
    store = ActivationStore.open(config.run / "activations")
    store.require_whole_grids()
    opened = open_sae(config.run, store, config.sae, decoded=False)
    config = dataclasses.replace(config, sae=opened.argument)
    folder = config.run / "features" / opened.name
    others = {STAGE: folder, "steer": config.run / "steer" / opened.name}
    with joined_processes(Process.of_environment()) as division, ExitStack() as held:
        read: list[RunData] = []

        def is_finished() -> bool:
            held.enter_context(writing(folder))
            data = data_of_run(config.run, store, config.data, others, own=STAGE)
            read.append(data)
            inputs = {
                "store": file_hash(store.folder / MANIFEST_NAME),
                **opened.hashes(),
                "annotations": data.annotations,
            }
            paths = {"run": config.run, "data": data.dataset.folder, "sae": opened.folder}
            return begin_or_resume(folder, STAGE, config, inputs, ignore=("run", "data", "device"), paths=paths)

        if not division.agree(is_finished):
            data = read[0] if read else data_of_run(config.run, store, config.data, others, own=STAGE)
            annotations = {video.video_id: video for video in data.dataset.videos}
            _run(config, store, opened, annotations, folder, division)
        division.meet()  # nobody leaves before the first process has written the tables
    return folder


def _run(
    config: FeaturesConfig,
    store: ActivationStore,
    opened: OpenedSae,
    annotations: Mapping[str, Video],
    folder: Path,
    division: Division,
) -> None:
    sae, device = opened.sae, resolve_device(config.device)
    codes = encode_store(
        store,
        sae,
        folder / CODES_NAME,
        batch_size=config.batch_size,
        device=device,
        name=str(opened.folder),
        division=division,
    )
    corpus = build_corpus(store.videos, annotations, min_videos=config.min_videos)
    activity = measure_activity(codes, store.videos, division)
    if corpus.labels:
        controls = encode_controls(
            store,
            sae.site,
            activity.firing_rate,
            n=config.controls,
            rng=np.random.default_rng([config.seed, 0]),
            batch_size=config.batch_size,
        )
        found = associate(codes, controls, corpus, activity.firing_rate, config, division)
    else:
        log.warning("No label is shown by enough videos, so latents are not associated with anything.")
        found = _nothing_found(codes.d_sae)
    decoder_norm = sae.decoder_norm.double().cpu().numpy()
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
    write_table(folder / "catalogue.parquet", catalogue, CATALOGUE)
    summary = summarise(config, activity, corpus, catalogue, associations)
    pictures = [name for column in ("media", "media_frame") for name in exemplars[column].dropna() if name]
    write_summary(folder, summary, [*TABLES, CODES_NAME, BY_LATENT_NAME, *pictures])
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
    """Counts over the whole stage, and one entry per label."""
    held = associations[associations["split"] == "held_out"]
    labels: list[dict[str, Any]] = []
    for label in corpus.all_labels():
        space, name = label.space, corpus.name(label)
        rows = held[(held["label"] == name) & (held["kind"] == space.kind) & (held["level"] == space.level)]
        holding = rows[rows["holds"].astype(bool)].sort_values(["auroc", "latent"], ascending=[False, True])
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
        "n_labels": len(labels),
        "n_tested": len(held),
        "n_discoveries": int((held["q_value"] < config.fdr).sum()),
        "n_labelled": int(catalogue["labelled"].sum()),
        "labels": labels,
    }


def _nothing_found(n_latents: int) -> Associations:
    none: Float64[np.ndarray, "latent label"] = np.empty((n_latents, 0))
    empty, unset = np.empty(0, dtype=np.int64), np.full(n_latents, -1, dtype=np.int64)
    return Associations(
        table=pd.DataFrame({"split": [], "latent": []}),
        selection=Selection(latent=empty, label=empty, top=unset, runner_up=unset),
        held_out_auroc=none,
    )
