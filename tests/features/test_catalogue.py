from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from collect.artefact.folder import read_table, write_table
from collect.artefact.table_input import empty_table
from features.activity import Activity, measure_activity
from features.association.associate import Associations, associate
from features.association.controls import Controls
from features.catalogue import ASSOCIATIONS, CATALOGUE, EXEMPLARS, build_catalogue
from features.config import FeaturesConfig
from features.labels.corpus import Corpus, build_corpus
from tests.features.conftest import BALL, CLAP, CUBE, D_SAE, DEAD, NOISE, MemoryCodes, PlantedVideo, records_of


@pytest.fixture(scope="module")
def measured(planted: list[PlantedVideo]) -> tuple[Activity, Associations, Corpus]:
    records = records_of(planted)
    codes = MemoryCodes(sparse.csr_array(np.concatenate([item.activations for item in planted])))
    corpus = build_corpus(records, {item.video.video_id: item.video for item in planted}, min_videos=5)
    activity = measure_activity(codes, records)
    controls = Controls(
        codes=sparse.csr_array((codes.n_tokens, 2), dtype=np.float32),
        bin=np.zeros(2, dtype=np.int64),
        rates=np.array([0.1]),
    )
    config = FeaturesConfig(run=Path("run"), permutations=99, bootstraps=50, options=("min_explained=0.1",))
    return activity, associate(codes, controls, corpus, activity.firing_rate, config), corpus


@pytest.fixture(scope="module")
def catalogue(measured: tuple[Activity, Associations, Corpus]) -> pd.DataFrame:
    activity, found, corpus = measured
    return build_catalogue(activity, np.arange(D_SAE, dtype=np.float64), found, corpus)


def test_there_is_one_row_per_latent_in_order(catalogue: pd.DataFrame) -> None:
    assert catalogue["latent"].tolist() == list(range(D_SAE))
    assert catalogue["decoder_norm"].tolist() == list(range(D_SAE))
    assert catalogue["is_dead"].tolist() == [latent >= DEAD for latent in range(D_SAE)]


def test_labelled_latents_carry_their_label_and_others_none(catalogue: pd.DataFrame) -> None:
    labelled = catalogue[catalogue["labelled"]]
    assert labelled["latent"].tolist() == [BALL, CUBE, CLAP]
    assert labelled["top_label"].tolist() == ["red ball", "blue cube", "clapping"]
    assert labelled["top_label_level"].tolist() == ["token", "token", "frame"]
    assert catalogue["top_label"].isna()[DEAD]
    assert catalogue["unnamed_because"].notna().tolist() == (catalogue["latent"] == NOISE).tolist()


def test_scores_are_those_of_the_association_on_held_out_videos(
    catalogue: pd.DataFrame, measured: tuple[Activity, Associations, Corpus]
) -> None:
    table = measured[1].table
    row = table[(table["latent"] == BALL) & (table["split"] == "held_out") & (table["label"] == "red ball")].iloc[0]
    for column in ("auroc", "q_value", "within_low", "control_auroc_p95"):
        assert catalogue[f"top_{column}"][BALL] == row[column]
    assert catalogue["correlation"][BALL] == row["correlation"]
    assert catalogue["explained"][BALL] == row["correlation"] ** 2
    assert catalogue["n_units"][BALL] == row["n_positive"]
    assert catalogue["gap"][BALL] == catalogue["top_auroc"][BALL] - catalogue["runner_up_auroc"][BALL]


def test_tables_fit_their_schemas(
    catalogue: pd.DataFrame, measured: tuple[Activity, Associations, Corpus], tmp_path: Path
) -> None:
    write_table(tmp_path / "catalogue.parquet", catalogue, CATALOGUE)
    write_table(tmp_path / "associations.parquet", measured[1].table, ASSOCIATIONS)
    stored = read_table(tmp_path / "catalogue.parquet")
    assert stored["labelled"].tolist() == catalogue["labelled"].tolist()
    assert list(stored["also"][BALL]) == list(catalogue["also"][BALL])
    assert stored["top_label"].isna().tolist() == catalogue["top_label"].isna().tolist()


@pytest.mark.parametrize("schema", [CATALOGUE, ASSOCIATIONS, EXEMPLARS])
def test_empty_tables_fit_their_schemas(schema: object, tmp_path: Path) -> None:
    write_table(tmp_path / "empty.parquet", empty_table(schema), schema)
    assert len(read_table(tmp_path / "empty.parquet")) == 0
