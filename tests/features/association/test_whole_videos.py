"""Labels of whole videos: a planted answer is found, by the right latent only, and a shuffled one is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse, stats

from collect.data.perception_test import Question
from features.association.associate import Associations
from features.association.selection import Selection
from features.association.whole_videos import rank_sum_z, with_pairs
from features.labels.corpus import build_corpus
from features.labels.labelling import QUESTIONS
from tests.features.association.test_associate import run
from tests.features.conftest import CLAP, PlantedVideo, plant_videos, records_of

TEXT = "Does somebody clap?"


def questioned(planted: Sequence[PlantedVideo], rng: np.random.Generator | None = None) -> list[PlantedVideo]:
    """Ask all but every fifth video whether somebody claps; the answers are shuffled by a generator."""
    claps = np.array([len(item.video.actions) == 2 for item in planted])
    answers = claps if rng is None else rng.permutation(claps)
    return [
        replace(item, video=replace(item.video, questions=() if index % 5 == 0 else (question(bool(answer)),)))
        for index, (item, answer) in enumerate(zip(planted, answers, strict=True))
    ]


def question(answer: bool) -> Question:
    return Question(
        id=0,
        video_id="video",
        question=TEXT,
        options=("no", "yes", "both"),
        answer_id=int(answer),
        area="memory",
        reasoning="descriptive",
        tag=(),
    )


def held_rows(found: Associations) -> list[dict[str, object]]:
    table = found.table
    return table[(table["kind"] == "question") & (table["split"] == "held_out")].to_dict("records")


def test_a_planted_answer_is_told_by_the_latent_that_follows_it() -> None:
    planted = questioned(plant_videos(60))
    rows = {(row["latent"], row["label"]): row for row in held_rows(run(planted))}
    row = rows[CLAP, f'"yes" to "{TEXT}"']
    held = [item.video for item in planted if item.video.split == "valid" and item.video.questions]
    n_claps = sum(len(video.actions) == 2 for video in held)
    assert (row["auroc"], row["level"], row["holds"]) == (1.0, "video", True)
    # One unit per video that is asked; the others are neither positive nor negative.
    assert (row["n_positive"], row["n_negative"]) == (n_claps, len(held) - n_claps)
    assert np.isnan(row["within_video_auroc"])
    assert [key for key, row in rows.items() if row["holds"]] == [(CLAP, f'"yes" to "{TEXT}"')]


def test_what_only_tells_videos_apart_is_no_name() -> None:
    found = run(questioned(plant_videos(60)))
    corpus = build_corpus(
        records_of(questioned(plant_videos(60))),
        {item.video.video_id: item.video for item in questioned(plant_videos(60))},
        min_videos=5,
    )
    labels = corpus.all_labels()
    tops = [labels[top].space for top in found.selection.top[found.names.labelled]]
    assert QUESTIONS in corpus.labels
    assert QUESTIONS not in tops


def test_shuffled_answers_are_told_at_the_nominal_rate() -> None:
    p_values: list[object] = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        planted = questioned(plant_videos(60, seed=seed), rng)
        extra = sparse.random_array((60 * 64, 50), density=0.01, rng=rng, dtype=np.float32, format="csr")
        p_values += [row["p_value"] for row in held_rows(run(planted, extra))]
    assert len(p_values) >= 25
    # Of 31 tests at 5 %, P(more than 4) = 1.8 %.
    assert sum(float(str(p_value)) <= 0.05 for p_value in p_values) <= 4


def test_the_z_is_that_of_the_rank_sum_test() -> None:
    rng = np.random.default_rng(0)
    positive, negative = rng.normal(0.7, 1, 12), rng.normal(0, 1, 20)
    test = stats.mannwhitneyu(positive, negative, alternative="greater", method="asymptotic", use_continuity=False)
    auroc = np.array([[test.statistic / (12 * 20)]])
    z = rank_sum_z(auroc, np.array([12]), np.array([20]))
    assert stats.norm.sf(z[0, 0]) == pytest.approx(test.pvalue)
    assert np.isnan(rank_sum_z(auroc, np.array([0]), np.array([20]))).all()


def test_further_pairs_are_there_once_and_in_order() -> None:
    one = np.array([-1])
    selection = Selection(latent=np.array([0, 2]), label=np.array([5, 1]), top=one, runner_up=one)
    joined = with_pairs(selection, np.array([2, 1, 2]), np.array([1, 7, 0]))
    assert list(zip(joined.latent.tolist(), joined.label.tolist(), strict=True)) == [(0, 5), (1, 7), (2, 0), (2, 1)]
