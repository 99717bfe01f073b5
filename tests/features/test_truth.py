"""The truth that names are held against: made from scripts, and compared here with what the annotations say."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from collect.data.perception_test import load_dataset
from collect.reading import VideoRecord
from collect.tokens.grid import TokenGrid, frame_spans
from demo.world.annotate import annotation
from demo.world.scene import FPS, Scene
from demo.world.script import draw_scene
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import ANNOTATED
from tests.features.rendered import concept_matrix
from tests.features.truth import Truth, figures, judge_names, meanings, recall

SIDE = 8
N_VIDEOS = 60


def grid_of(scene: Scene) -> TokenGrid:
    times = scene.sample_times()
    spans, frames = frame_spans(times, float(FPS)), np.round(times * FPS).astype(np.int64)
    return TokenGrid.uniform(n_rows=SIDE, n_cols=SIDE, spans_s=spans, frame_ids=frames)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(7, index) for index in range(N_VIDEOS)]


@pytest.fixture(scope="module")
def corpus(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The labels of annotated scenes, of which no video is drawn."""
    folder = tmp_path_factory.mktemp("data")
    splits = ["valid" if index % 3 == 2 else "train" for index in range(N_VIDEOS)]
    content = {scene.video_id: annotation(scene, split, []) for scene, split in zip(scenes, splits, strict=True)}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    videos = {video.video_id: video for video in load_dataset(folder).videos}
    records = [
        VideoRecord(
            index=index,
            video_id=scene.video_id,
            path="",
            split=splits[index],
            row_start=index * SIDE * SIDE * len(scene.sample_times()),
            row_stop=(index + 1) * SIDE * SIDE * len(scene.sample_times()),
            grid=grid_of(scene),
            frame_rate=float(FPS),
            n_frames=scene.n_frames,
            width=scene.width,
            height=scene.height,
        )
        for index, scene in enumerate(scenes)
    ]
    return build_corpus(records, videos, min_videos=4)


def test_labels_go_along_with_what_they_name(scenes: list[Scene], corpus: Corpus) -> None:
    concepts, values = concept_matrix([(scene, grid_of(scene)) for scene in scenes])
    column = {name: values[:, index] for index, name in enumerate(concepts)}
    loose: list[str] = []
    compared = 0
    for space, labels in corpus.labels.items():
        for label, name in enumerate(labels.names):
            own = labels.positive[:, [label]].toarray().reshape(-1).astype(np.float64)
            own = np.repeat(own, SIDE * SIDE) if space.level == "frame" else own
            meant = [column[concept] for concept in meanings(space.kind, space.level, name) if concept in column]
            meant = [concept for concept in meant if concept.std() > 0]
            if meant and own.std() > 0:
                compared += 1
                correlation = max(np.corrcoef(own, concept)[0, 1] for concept in meant)
                if correlation < (0.25 if space in ANNOTATED else 1 - 1e-9):
                    loose.append(f"{space.kind}/{space.level} {name}: {correlation:.2f}")
    assert compared > 200
    assert not loose, "\n".join(loose)


def test_a_name_is_right_if_it_is_close_to_the_best_concept() -> None:
    truth = Truth(
        concepts=["red ball", "name: red", "centre: red ball"],
        correlation=np.array([[0.80, 0.5, 0.88], [0.70, 0.5, 0.88]]),
        auroc=np.full((2, 3), 0.5),
    )
    catalogue = pd.DataFrame(
        {
            "latent": [0, 1],
            "labelled": True,
            "top_label": "red ball",
            "top_label_kind": "object",
            "top_label_level": "token",
        }
    )
    judged = judge_names(truth, catalogue)
    assert judged["right"].tolist() == [True, False]  # 0.9 · 0.88 = 0.79
    assert judged["best"].tolist() == ["centre: red ball"] * 2
    assert figures(judged).loc["all"].tolist() == [2, 1, 0.5]


def test_recall_counts_the_concepts_that_some_latent_follows() -> None:
    # Three concepts are followed; one latent is rightly called by the first of them, and tells the second best.
    truth = Truth(
        concepts=["red ball", "centre: red ball", "name: red", "row 1"],
        correlation=np.array([[0.85, 0.88, 0.5, 0.1]]),
        auroc=np.array([[0.96, 0.97, 0.95, 0.5]]),
    )
    catalogue = pd.DataFrame(
        {
            "latent": [0],
            "labelled": True,
            "top_label": "red ball",
            "top_label_kind": "object",
            "top_label_level": "token",
        }
    )
    found = recall(truth, judge_names(truth, catalogue))
    assert found.loc["all"].tolist() == [3, 1, 2]
    assert found.loc["(itself)"].tolist() == [1, 1, 1]
    assert found.loc["centre"].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("kind", "level", "label", "concept"),
    [
        ("object", "token", "red", "name: red"),
        ("part", "token", "centre of red ball", "centre: red ball"),
        ("sight", "token", "centre of ball at first sight", "first sight of the centre: name: ball"),
        ("state", "token", "centre of visible ball", "centre: cup-game ball"),
        ("role", "token", "centre of object of tapping something", "centre: acted on: tap"),
        ("role", "token", "lamp since object click", "lamp since click"),
        ("action", "frame", "after swapping two cups", "frame: after swap"),
        ("sound", "frame", "object click begins", "frame: lamp turns on"),
        ("state", "token", "occluding cup", "cup with the ball"),
        ("light", "frame", "bright frame", "frame: bright"),
        ("scene", "frame", "5 or more objects in view", "frame: 5 or more things"),
        ("place", "token", "row 8 of 8", "row 7"),
        ("time", "token", "time steps 5 to 8", "time from 4 on"),
    ],
)
def test_what_labels_mean(kind: str, level: str, label: str, concept: str) -> None:
    assert concept in meanings(kind, level, label)
