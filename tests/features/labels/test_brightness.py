from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collect.reading import VideoRecord
from features.labels import brightness
from features.labels.brightness import brightness_of, frame_luminance, light_labels, quarters
from features.labels.corpus import build_corpus
from features.labels.labelling import LIGHT
from tests.collect.video_files import write_video
from tests.features.conftest import FPS, N_T, PlantedVideo, plant_videos, records_of
from tests.features.labels.annotated import negatives, units


def test_luminance_by_hand() -> None:
    frames = np.zeros((3, 16, 16, 3), dtype=np.uint8)
    frames[1] = 255
    frames[2, :, :, 1] = 51  # green at a fifth: 0.7152 / 5
    np.testing.assert_allclose(frame_luminance(frames), [0.0, 1.0, 0.14304])


def test_bright_and_dark_frames_are_those_beyond_the_quarters() -> None:
    found = light_labels(np.array([0.1, 0.5, 0.9, np.nan]), dark=0.2, bright=0.8)
    assert [units(found.positive, label) for label in range(2)] == [[2], [0]]
    assert [negatives(found, label) for label in range(2)] == [[0, 1], [1, 2]]


def test_quarters_are_those_of_train_frames_of_known_brightness() -> None:
    records = records_of(plant_videos(2))
    known = {records[0].video_id: np.array([0.0, 1.0, 2.0, np.nan]), records[1].video_id: np.full(4, 9.0)}
    assert quarters(records, known, np.array([False, True])) == (0.5, 1.5)
    assert np.isnan(quarters(records, known, np.array([True, True]))).all()


def written(folder: Path, planted: list[PlantedVideo], levels: list[int]) -> list[VideoRecord]:
    """Records of grey videos, the second half of each twice as bright."""
    records: list[VideoRecord] = []
    for record, level in zip(records_of(planted), levels, strict=True):
        path = folder / f"{record.video_id}.mp4"
        frames = [np.full((32, 32, 3), level * (1 + (t >= 2 * FPS)), dtype=np.uint8) for t in range(int(N_T * FPS))]
        write_video(path, frames, rate=int(FPS))
        records.append(replace(record, path=str(path)))
    return records


def test_brightness_is_measured_once_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = written(tmp_path, plant_videos(3), [30, 60, 90])
    (tmp_path / "video_002.mp4").write_bytes(b"no video")
    found = brightness_of(records, {}, tmp_path / "stage")
    np.testing.assert_allclose(found["video_000"], [30 / 255] * 2 + [60 / 255] * 2, atol=0.01)
    np.testing.assert_allclose(found["video_001"], [60 / 255] * 2 + [120 / 255] * 2, atol=0.01)
    assert np.isnan(found["video_002"]).all()

    def refuse(*_: object) -> None:
        raise AssertionError("a video was decoded again")

    monkeypatch.setattr(brightness, "decode_frames", refuse)
    again = brightness_of(records, {}, tmp_path / "stage")
    for video_id, values in found.items():
        np.testing.assert_array_equal(again[video_id], values)
    with pytest.raises(AssertionError, match="decoded again"):
        brightness_of(records[:2], {}, tmp_path / "stage")


def test_light_is_a_label_where_enough_videos_show_it() -> None:
    planted = plant_videos(20)
    records, videos = records_of(planted), {item.video.video_id: item.video for item in planted}
    rng = np.random.default_rng(0)
    light = {record.video_id: rng.random(N_T) for record in records}
    labels = build_corpus(records, videos, min_videos=4, brightness=light).labels[LIGHT]
    assert labels.names == ("bright frame", "dark frame")
    values = np.concatenate([light[record.video_id] for record in records])
    train = np.concatenate([light[record.video_id] for record in records if record.split == "train"])
    bright = labels.positive[:, [0]].toarray().reshape(-1)
    np.testing.assert_array_equal(bright, values >= np.quantile(train, 0.75))
    # Seven videos of each split show a bright frame, six a dark one.
    assert build_corpus(records, videos, min_videos=7, brightness=light).labels[LIGHT].names == ("bright frame",)
    assert LIGHT not in build_corpus(records, videos, min_videos=8, brightness=light).labels
    assert LIGHT not in build_corpus(records, videos, min_videos=4).labels
