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
from tests.features.conftest import BALL, CLAP, CUBE, DEAD, NOISE, MemoryCodes, PlantedVideo, plant_videos, records_of

CONFIG = FeaturesConfig(run=Path("run"), min_videos=5, permutations=199, bootstraps=200, options=("min_explained=0.1",))


def shuffled(planted: Sequence[PlantedVideo], rng: np.random.Generator) -> list[PlantedVideo]:
    """Give every video another's annotations."""
    order = rng.permutation(len(planted))
    return [
        replace(item, video=replace(other.video, video_id=item.video.video_id, split=item.video.split))
        for item, other in zip(planted, (planted[i] for i in order), strict=True)
    ]


def run(
    planted: Sequence[PlantedVideo],
    extra: sparse.sparray | None = None,
    *,
    controls: sparse.sparray | None = None,
    baseline: sparse.sparray | None = None,
) -> Associations:
    """Associate the planted latents, and others if given, with the given controls or some that fire at random."""
    codes = sparse.csr_array(np.concatenate([item.activations for item in planted]))
    codes = MemoryCodes(sparse.csr_array(sparse.hstack([codes, extra])) if extra is not None else codes)
    if controls is None:
        rng = np.random.default_rng(5)
        controls = sparse.random_array((codes.n_tokens, 20), density=0.1, rng=rng, dtype=np.float32)
    corpus = build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)
    firing_rate = np.diff(codes.rows(0, codes.n_tokens).tocsc().indptr) / codes.n_tokens
    return associate(
        codes,
        matched(controls),
        corpus,
        firing_rate,
        CONFIG,
        baseline=None if baseline is None else matched(baseline),
    )


def matched(codes: sparse.sparray) -> Controls:
    """Controls that are compared with all latents."""
    bins = np.zeros(codes.shape[1], dtype=np.int64)
    return Controls(codes=sparse.csr_array(codes), bin=bins, rates=np.array([0.1]))


def named_labels(found: Associations) -> list[tuple[str, str]]:
    """Kind and label of the latents that are named, by latent."""
    labels = {
        (row.latent, row.label_number): (row.kind, row.label)
        for row in found.table.assign(label_number=np.repeat(found.selection.label, 2)).itertuples()
    }
    return [labels[latent, found.selection.top[latent]] for latent in np.flatnonzero(found.names.labelled)]


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
        (CLAP, "clapping begins", "action", "frame"),  # the first of the clapping's two frames
    }
    assert (holding["split"] == "held_out").all()
    assert (holding["q_value"] <= 4 / 200).all()
    whole = holding[holding["label"] != "clapping begins"]
    assert (whole["auroc"] == 1.0).all()
    assert (whole["within_low"] == 1.0).all()


def test_the_planted_latents_are_named_and_no_other(found: Associations) -> None:
    assert named_labels(found) == [("object", "red ball"), ("object", "blue cube"), ("action", "clapping")]
    assert found.names.unnamed_because[NOISE] is not None
    assert found.names.also[BALL][0] == "centre of red ball"  # it covers one patch, its middle


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
    clapping = found.table[
        (found.table["latent"] == CLAP) & (found.table["split"] == "held_out") & (found.table["label"] == "clapping")
    ].iloc[0]
    claps = sum(len(item.video.actions) == 2 for item in held)
    assert (clapping["n_positive"], clapping["n_videos"], clapping["videos_share"]) == (2 * claps, claps, 1.0)
    assert clapping["n_negative"] == 4 * len(held) - 2 * claps


def test_the_runner_up_explains_next_most_on_train(found: Associations) -> None:
    train = found.explanation.train[BALL]
    order = np.argsort(-train)
    assert found.selection.top[BALL] == order[0]
    assert train[found.selection.runner_up[BALL]] == train[order[1]]
    assert found.selection.top[DEAD] == found.selection.runner_up[DEAD] == -1


def test_two_runs_give_identical_tables(found: Associations, planted: list[PlantedVideo]) -> None:
    pd.testing.assert_frame_equal(run(planted).table, found.table, check_exact=True)


def test_a_label_that_any_direction_tells_is_not_given(planted: list[PlantedVideo]) -> None:
    ball = sparse.csr_array(np.concatenate([item.activations[:, [BALL]] for item in planted]).astype(np.float32))
    found = run(planted, controls=sparse.hstack([ball] * 3))
    table = found.table
    holding = table[table["holds"]]
    assert set(holding["latent"]) == {CUBE, CLAP}
    assert found.names.unnamed_because[BALL] == "no better than controls"
    row = table[(table["latent"] == BALL) & (table["split"] == "held_out")].iloc[0]
    assert (row["auroc"], row["control_auroc_p95"], row["control_auroc_best"]) == (1.0, 1.0, 1.0)
    assert row["q_value"] < 0.05


def test_a_name_has_to_beat_the_baselines_latents(planted: list[PlantedVideo]) -> None:
    ball = sparse.csr_array(np.concatenate([item.activations[:, [BALL]] for item in planted]).astype(np.float32))
    found = run(planted, baseline=sparse.hstack([ball] * 3))
    assert [name for _, name in named_labels(found)] == ["blue cube", "clapping"]
    assert found.names.unnamed_because[BALL] == "no better than the baseline"
    row = found.table[(found.table["latent"] == BALL) & (found.table["split"] == "held_out")].iloc[0]
    assert (row["baseline_auroc_p95"], row["baseline_auroc_best"], row["holds"]) == (1.0, 1.0, False)


def labels_of_shuffled_videos(seed: int) -> tuple[int, int, int]:
    """Annotated labels that were tested, that hold, and that are names, where videos have each other's annotations."""
    planted = shuffled(plant_videos(60, seed=seed), np.random.default_rng(seed))
    extra = sparse.random_array(
        (60 * 64, 200), density=0.05, rng=np.random.default_rng(seed + 1000), dtype=np.float32, format="csr"
    )
    found = run(planted, extra)
    held = found.table[(found.table["split"] == "held_out") & ~found.table["kind"].isin(["place", "time"])]
    names = [name for kind, name in named_labels(found) if kind not in ("place", "time")]
    return len(held), int(held["holds"].sum()), len(names)


def test_shuffled_videos_yield_no_label() -> None:
    n_tested, n_holding, n_names = labels_of_shuffled_videos(3)
    assert n_tested >= 3
    assert n_holding == n_names == 0


@pytest.mark.slow
def test_twenty_shuffles_yield_names_at_or_below_the_nominal_rate() -> None:
    found = [labels_of_shuffled_videos(seed) for seed in range(20)]
    n_tested = sum(n for n, _, _ in found)
    # Under the null every shuffle with a discovery is a false one; at a rate of 5 % that is one of twenty.
    assert n_tested >= 60
    assert sum(n_holding > 0 for _, n_holding, _ in found) <= 3  # P(more than 3 of 20 at 5 %) = 1.6 %
    assert sum(n_names for _, _, n_names in found) <= 0.05 * n_tested
