from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from features.association.associate import Associations, associate
from features.association.controls import Controls
from features.config import FeaturesConfig
from features.labels.corpus import build_corpus
from tests.features.conftest import BALL, CLAP, CUBE, NOISE, MemoryCodes, PlantedVideo, plant_videos, records_of

CONFIG = FeaturesConfig(run=Path("run"), min_videos=5, permutations=199, bootstraps=200)


def shuffled(planted: Sequence[PlantedVideo], rng: np.random.Generator) -> list[PlantedVideo]:
    """Give every video another's annotations."""
    order = rng.permutation(len(planted))
    return [
        replace(item, video=replace(other.video, video_id=item.video.video_id, split=item.video.split))
        for item, other in zip(planted, (planted[i] for i in order), strict=True)
    ]


def run(
    planted: Sequence[PlantedVideo], extra: sparse.sparray | None = None, *, controls: sparse.sparray | None = None
) -> Associations:
    """Associate the planted latents, and others if given, with the given controls or some that fire at random."""
    codes = sparse.csr_array(np.concatenate([item.activations for item in planted]))
    codes = MemoryCodes(sparse.csr_array(sparse.hstack([codes, extra])) if extra is not None else codes)
    if controls is None:
        rng = np.random.default_rng(5)
        controls = sparse.random_array((codes.n_tokens, 20), density=0.1, rng=rng, dtype=np.float32)
    matched = Controls(
        codes=sparse.csr_array(controls), bin=np.zeros(controls.shape[1], dtype=np.int64), rates=np.array([0.1])
    )
    corpus = build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)
    firing_rate = np.diff(codes.rows(0, codes.n_tokens).tocsc().indptr) / codes.n_tokens
    return associate(codes, matched, corpus, firing_rate, CONFIG)


@pytest.fixture(scope="module")
def found(planted: list[PlantedVideo]) -> Associations:
    return run(planted)


def test_planted_features_hold_and_nothing_else(found: Associations) -> None:
    holding = found.table[found.table["holds"]]
    named = {(row.latent, row.label, row.kind, row.level) for row in holding.itertuples()}
    assert named == {
        (BALL, "red ball", "object", "token"),
        (CUBE, "blue cube", "object", "token"),
        (CLAP, "clapping", "action", "frame"),
    }
    assert (holding["split"] == "held_out").all()
    assert (holding["auroc"] == 1.0).all()
    assert (holding["within_low"] == 1.0).all()
    assert (holding["q_value"] <= 3 / 200).all()


def test_each_pair_has_a_train_row_without_and_a_held_out_row_with_inference(found: Associations) -> None:
    train, held = (found.table[found.table["split"] == split] for split in ("train", "held_out"))
    assert train[["latent", "label"]].to_numpy().tolist() == held[["latent", "label"]].to_numpy().tolist()
    assert train[["p_value", "q_value", "within_low", "control_auroc_p95"]].isna().all(axis=None)
    assert held[["p_value", "q_value", "within_low", "control_auroc_p95"]].notna().all(axis=None)
    assert train["threshold"].tolist() == held["threshold"].tolist()


def test_counts_by_hand(found: Associations, planted: list[PlantedVideo]) -> None:
    held = [item for item in planted if item.video.split == "valid"]
    row = found.table[(found.table["latent"] == BALL) & (found.table["split"] == "held_out")].iloc[0]
    # One patch on the ball and one on the cube in each of four frames.
    assert (row["n_positive"], row["n_negative"]) == (4 * len(held), 4 * len(held))
    assert row["base_rate"] == 0.5
    assert row["n_videos"] == row["n_videos_positive"] == len(held)
    clapping = found.table[(found.table["latent"] == CLAP) & (found.table["split"] == "held_out")].iloc[0]
    claps = sum(len(item.video.actions) == 2 for item in held)
    assert (clapping["n_positive"], clapping["n_videos"]) == (2 * claps, claps)
    assert clapping["n_negative"] == 4 * len(held) - 2 * claps


def test_the_runner_up_is_the_second_best_on_train(found: Associations) -> None:
    assert found.selection.top[NOISE] == -1
    assert found.selection.runner_up[NOISE] == -1
    assert found.selection.runner_up[BALL] not in (-1, found.selection.top[BALL])


def test_two_runs_give_identical_tables(found: Associations, planted: list[PlantedVideo]) -> None:
    pd.testing.assert_frame_equal(run(planted).table, found.table, check_exact=True)


def test_a_label_that_any_direction_tells_is_not_given(planted: list[PlantedVideo]) -> None:
    ball = sparse.csr_array(np.concatenate([item.activations[:, [BALL]] for item in planted]).astype(np.float32))
    table = run(planted, controls=sparse.hstack([ball] * 3)).table
    holding = table[table["holds"]]
    assert set(holding["latent"]) == {CUBE, CLAP}
    row = table[(table["latent"] == BALL) & (table["split"] == "held_out")].iloc[0]
    assert (row["auroc"], row["control_auroc_p95"], row["control_auroc_best"]) == (1.0, 1.0, 1.0)
    assert row["q_value"] < 0.05


def test_shuffled_videos_yield_no_label() -> None:
    planted = shuffled(plant_videos(60, seed=3), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    extra = sparse.random_array((60 * 64, 200), density=0.05, rng=rng, dtype=np.float32, format="csr")
    found = run(planted, extra)
    held = found.table[found.table["split"] == "held_out"]
    assert len(held) >= 3
    assert not held["holds"].any()
