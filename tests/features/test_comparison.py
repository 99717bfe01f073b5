from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.association.associate import Associations
from features.comparison import compare_with_baseline
from features.labels.corpus import build_corpus
from tests.features.association.test_associate import run
from tests.features.conftest import PlantedVideo, records_of


@pytest.fixture(scope="module")
def found(planted: list[PlantedVideo]) -> Associations:
    return run(planted)


def test_an_sae_is_no_better_than_itself_and_better_than_a_weaker_one(
    found: Associations, planted: list[PlantedVideo]
) -> None:
    corpus = build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)
    same = compare_with_baseline(found, found, corpus)
    assert (same["n_labelled"], same["n_labelled_more"], same["n_labels_better"]) == (3, 0, 0)
    assert same["best_correlation_more"] == same["explained_more"] == 0

    explanation = replace(found.explanation, held_out=0.5 * found.explanation.held_out)
    unnamed = replace(found.names, labelled=np.zeros_like(found.names.labelled))
    weaker = compare_with_baseline(found, replace(found, explanation=explanation, names=unnamed), corpus)
    assert (weaker["n_labelled"], weaker["n_labelled_more"]) == (0, 3)
    assert (weaker["explained"], weaker["explained_more"]) == (None, None)
    assert weaker["best_correlation_more"] == pytest.approx(weaker["best_correlation"])
