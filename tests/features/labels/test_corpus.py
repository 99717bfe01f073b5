from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from collect.data.perception_test import Track, Video
from features.labels.corpus import Corpus, build_corpus
from features.labels.labelling import OBJECTS, PLACES, TIMES
from features.labels.unit_labels import Space
from tests.features.conftest import PlantedVideo, make_track, plant_videos, records_of


def build(videos: Sequence[Video], min_videos: int = 1) -> Corpus:
    records = [
        replace(record, split=video.split)
        for record, video in zip(records_of(plant_videos(len(videos))), videos, strict=True)
    ]
    return build_corpus(records, {video.video_id: video for video in videos}, min_videos=min_videos)


def with_tracks(index: int, tracks: Sequence[Track]) -> Video:
    return replace(plant_videos(index + 1)[index].video, tracks=tuple(tracks))


def test_labels_need_enough_videos_of_both_splits() -> None:
    # Odd videos are train. The ball is in videos 0 to 3, the mug in 0, 2 and 3, the pen in 1 and 3 only.
    tracks = {
        "ball": (0, 1, 2, 3),
        "mug": (0, 2, 3),
        "pen": (1, 3),
    }
    videos = [
        with_tracks(index, [make_track(k, name, [k] * 4) for k, name in enumerate(tracks) if index in tracks[name]])
        for index in range(4)
    ]
    assert build(videos, 1).labels[OBJECTS].names == ("ball", "mug")
    assert build(videos, 2).labels[OBJECTS].names == ("ball",)


def test_an_object_that_covers_no_patch_does_not_count() -> None:
    thin = replace(make_track(1, "thread", [0] * 4), boxes=np.array([[0.0, 0.0, 0.01, 1.0]] * 4))
    videos = [with_tracks(index, [make_track(0, "ball", [3] * 4), thin]) for index in range(2)]
    assert build(videos).labels[OBJECTS].names == ("ball",)


def test_labels_that_too_few_videos_show_on_a_patch_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    thin = replace(make_track(1, "thread", [0] * 4), boxes=np.array([[0.0, 0.0, 0.01, 1.0]] * 4))
    with caplog.at_level(logging.INFO):
        assert build([with_tracks(index, [thin]) for index in range(2)]).labels.get(OBJECTS) is None
    assert "No object/token label is shown by 1 videos of both splits (the most frequent by 0)" in caplog.text


def test_names_with_the_same_tokens_are_one_label_under_the_longest() -> None:
    videos = [with_tracks(index, [make_track(0, "red ball", [index] * 4)]) for index in range(2)]
    assert build(videos).labels[OBJECTS].names == ("red ball",)
    videos = [
        with_tracks(i, [make_track(0, "red ball", [i] * 4), make_track(1, "red cube", [9] * 4)]) for i in range(2)
    ]
    assert build(videos).labels[OBJECTS].names == ("red", "red ball", "red cube")


def test_too_few_videos_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    videos = [with_tracks(index, [make_track(0, "ball", [3] * 4)]) for index in range(4)]
    with caplog.at_level(logging.INFO):
        assert OBJECTS not in build(videos, 30).labels
    assert "No object/token label is shown by 30 videos of both splits (the most frequent by 2)" in caplog.text


def test_videos_without_annotations_are_unlabelled(planted: list[PlantedVideo]) -> None:
    known = {item.video.video_id: item.video for item in planted[:20]}
    corpus = build_corpus(records_of(planted), known, min_videos=5)
    labels = corpus.labels[OBJECTS]
    assert labels.positive[20 * 64 :].nnz == 0
    assert not labels.eligible[20 * 64 :].any()
    assert labels.eligible[: 20 * 64].any()
    strata = corpus.strata(np.arange(40))
    assert not set(strata[:20]) & set(strata[20:])


def test_without_any_annotation_there_is_no_label(planted: list[PlantedVideo]) -> None:
    assert build_corpus(records_of(planted), {}, min_videos=1).labels == {}


def test_places_and_times_are_labels_where_anything_is(planted: list[PlantedVideo]) -> None:
    corpus = build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)
    assert "row 2 of 4" in corpus.labels[PLACES].names
    assert "time step 4 of 4" in corpus.labels[TIMES].names
    assert corpus.labels[PLACES].eligible.all()
    firsts = corpus.first_labels()
    for number, label in enumerate(corpus.all_labels()):
        assert firsts[label.space] + label.column == number


def test_an_events_own_name_stands_for_its_forms(planted: list[PlantedVideo]) -> None:
    # The clapping lasts to the end of the clip, so that it and what is since it are the same frames.
    corpus = build_corpus(records_of(planted), {item.video.video_id: item.video for item in planted}, min_videos=5)
    names = corpus.labels[Space("action", "frame")].names
    assert "clapping" in names
    assert "since clapping" not in names


def test_videos_without_tracks_tracks_without_frames_and_labels_from_right_to_left_are_labelled() -> None:
    cup, pen = make_track(0, "كوب أحمر", [3] * 4), make_track(1, "pen", [0])
    nothing = np.zeros(0)
    pen = replace(
        pen,
        boxes=np.zeros((0, 4)),
        frame_ids=nothing.astype(np.int64),
        times_s=nothing,
        is_masked=nothing.astype(bool),
    )
    videos = [with_tracks(index, [cup, pen] if index < 2 else []) for index in range(4)]
    corpus = build(videos)
    assert "كوب أحمر" in corpus.labels[OBJECTS].names
    assert "pen" not in corpus.labels[OBJECTS].names
    positive = corpus.labels[OBJECTS].positive
    assert positive[: 2 * 64].nnz > 0
    assert positive[2 * 64 :].nnz == 0
    assert corpus.annotated.all()


def test_one_video_alone_has_no_label() -> None:
    assert build([with_tracks(0, [make_track(0, "cup", [3] * 4)])]).labels == {}
