from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.association.explanation import Explanation
from features.association.naming import Names, name_latents
from features.association.selection import Selection
from features.config import FeaturesConfig
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS, PLACES
from tests.features.conftest import PlantedVideo, records_of

GOOD: dict[str, Any] = {
    "n_positive": 50,
    "q_value": 0.01,
    "auroc": 0.9,
    "within_low": 0.8,
    "videos_share": 0.9,
    "control_auroc_p95": 0.6,
    "baseline_auroc_p95": float("nan"),
}
"""A held-out row that misses nothing."""


@pytest.fixture(scope="module")
def corpus(planted: list[PlantedVideo]) -> Corpus:
    return build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)


def decide(
    corpus: Corpus,
    *,
    top: int = 0,
    own: float = 0.8,
    others: dict[int, float] | None = None,
    place_time: float = 0.1,
    error: float = 0.01,
    **row: Any,
) -> Names:
    """The decision about one latent whose candidate is label `top`, which correlates by `own`."""
    correlations = np.zeros((1, len(corpus.all_labels())))
    correlations[0, top] = own
    for label, value in (others or {}).items():
        correlations[0, label] = value
    one = np.array([0])
    return name_latents(
        pd.DataFrame([{**GOOD, **row}] * 2),
        Selection(latent=one, label=np.array([top]), top=np.array([top]), runner_up=np.array([-1])),
        Explanation(
            train=correlations,
            held_out=correlations,
            place_time=np.array([place_time]),
            top_error=np.array([error]),
            lead_error=np.full(correlations.shape, error),
        ),
        corpus,
        FeaturesConfig(run=Path("run")),
    )


def test_a_label_that_misses_nothing_is_a_name(corpus: Corpus) -> None:
    names = decide(corpus, own=0.8, place_time=0.1)
    assert names.labelled.tolist() == [True]
    assert names.unnamed_because == [None]
    assert names.explained[0] == pytest.approx(0.64)
    assert names.explained_low[0] == pytest.approx((0.8 - 0.0196) ** 2)
    assert names.explained_by_place_time[0] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"n_positive": 7}, "few units"),
        ({"q_value": 0.05}, "not significant"),
        ({"q_value": float("nan")}, "not significant"),
        ({"auroc": 0.69}, "low AUROC"),
        ({"within_low": 0.54}, "low AUROC within videos"),
        ({"within_low": float("nan")}, "low AUROC within videos"),
        ({"videos_share": 0.49}, "in few videos"),
        ({"control_auroc_p95": 0.9}, "no better than controls"),
        ({"baseline_auroc_p95": 0.9}, "no better than the baseline"),
        ({"own": 0.38}, "explains little"),  # 0.38² = 0.144
        ({"own": -0.8}, "explains little"),
        ({"error": 0.5}, "explains little"),  # 0.8 - 1.96 · 0.5 is below 0
        ({"place_time": 0.81}, "place and time explain it better"),
        ({"others": {1: 0.9}}, "another label explains it better"),  # 0.9 · 0.9 = 0.81
    ],
)
def test_the_first_floor_that_is_missed_is_the_reason(corpus: Corpus, row: dict[str, Any], reason: str) -> None:
    names = decide(corpus, **row)
    assert names.unnamed_because == [reason]
    assert not names.labelled.any()


def test_a_name_of_a_place_may_fall_short_of_the_map_by_the_margin(corpus: Corpus) -> None:
    row = corpus.first_labels()[PLACES]
    assert decide(corpus, top=row, own=0.8, place_time=0.88).labelled.all()  # 0.9 · 0.88 = 0.79
    assert decide(corpus, top=row, own=0.8, place_time=0.9).unnamed_because == ["place and time explain it better"]


def test_another_label_within_the_margin_does_not_take_the_name(corpus: Corpus) -> None:
    assert decide(corpus, own=0.8, others={1: 0.88}).labelled.all()  # 0.9 · 0.88 = 0.79


def test_labels_that_cannot_be_told_apart_are_given_with_the_name(corpus: Corpus) -> None:
    labels = corpus.all_labels()
    # Within 1.96 standard errors of 0.02, or above; the last one is not within the margin.
    names = decide(corpus, own=0.8, others={1: 0.77, 2: 0.85, 3: 0.75, 4: 0.5}, error=0.02)
    assert names.also == [[corpus.name(labels[2]), corpus.name(labels[1])]]
    assert decide(corpus, own=0.8, others={4: 0.5}, error=0.4).also == [[]]


def test_a_latent_without_a_candidate_has_neither_name_nor_reason(corpus: Corpus) -> None:
    nothing = np.zeros((1, len(corpus.all_labels())))
    names = name_latents(
        pd.DataFrame(),
        Selection(
            latent=np.empty(0, dtype=np.int64),
            label=np.empty(0, dtype=np.int64),
            top=np.array([-1]),
            runner_up=np.array([-1]),
        ),
        Explanation(train=nothing, held_out=nothing, place_time=np.zeros(1), top_error=np.zeros(1), lead_error=nothing),
        corpus,
        FeaturesConfig(run=Path("run")),
    )
    assert (names.labelled.tolist(), names.unnamed_because, names.also) == ([False], [None], [[]])
    assert np.isnan(names.correlation).all()
    assert OBJECTS in corpus.labels
