"""Files of questions and annotations in every usual shape, wherever they lie."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from collect.data.annotation_files import deeper_annotations
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from tests.collect.video_files import numbered, write_video


def question(number: int, **more: object) -> dict[str, Any]:
    return {"id": number, "question": "How many cups?", "options": ["one", "two", "three"], "answer_id": 2, **more}


TRACK = {"id": 3, "label": "cup", "bounding_boxes": [[0.5, 0.5, 0.8, 0.9]], "frame_ids": [0]}
SHAPES: dict[str, object] = {
    "as published by the challenge": {"video_1": [question(0), question(1)]},
    "wrapped, without metadata": {"video_1": {"mc_question": [question(0), question(1)]}},
    "keyed by file name": {"video_1.mp4": [question(0), question(1)]},
    "a list of questions that name their video": [
        question(0, video_id="video_1"),
        question(1, video="video_1.mp4"),
    ],
    "a list of videos": [{"video_id": "video_1", "mc_question": [question(0), question(1)]}],
    "one video that names itself": {"video_id": "video_1", "mc_question": [question(0), question(1)]},
    "one video that its metadata name": {
        "metadata": {"video_id": "video_1"},
        "mc_question": [question(0), question(1)],
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "video_1.mp4", numbered(6))
    return tmp_path


def save(folder: Path, name: str, content: object, before: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(before + json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["data.json", "annotations/data.json", "mc_question_valid.json"])
@pytest.mark.parametrize("shape", SHAPES)
def test_questions_in_any_shape_under_any_name(folder: Path, shape: str, name: str) -> None:
    save(folder, name, SHAPES[shape])
    (video,) = load_dataset(folder).videos
    assert [(q.id, q.options, q.answer_id, q.tag) for q in video.questions] == [
        (0, ("one", "two", "three"), 2, ()),
        (1, ("one", "two", "three"), 2, ()),
    ]
    assert (video.video_id, video.split, video.n_frames, video.frame_rate) == ("video_1", "unknown", 6, 30.0)
    assert (video.height, video.width) == (48, 64)


def test_a_file_named_after_its_video(folder: Path) -> None:
    save(folder, "annotations/video_1.json", {"object_tracking": [TRACK]})
    (video,) = load_dataset(folder).videos
    assert [(t.id, t.label, t.times_s.tolist(), t.is_masked.tolist()) for t in video.tracks] == [
        (3, "cup", [0.0], [False])
    ]


def test_a_byte_order_mark(folder: Path) -> None:
    save(folder, "annotations/a.json", {"video_1": {"object_tracking": [TRACK]}}, before="\ufeff")
    assert len(load_dataset(folder).videos[0].tracks) == 1


def test_what_two_files_say_alike_counts_once_also_without_ids(folder: Path) -> None:
    bare = {name: value for name, value in question(0).items() if name != "id"}
    save(folder, "annotations/a.json", {"video_1": [bare, {**bare, "question": "How many mugs?"}]})
    save(folder, "annotations/b.json", {"video_1": [bare, {**bare, "question": "How many jugs?"}]})
    (video,) = load_dataset(folder).videos
    assert [(q.id, q.question) for q in video.questions] == [
        (0, "How many cups?"),
        (1, "How many mugs?"),
        (2, "How many jugs?"),
    ]


def test_metadata_may_be_partial_and_the_file_fills_them_in(folder: Path) -> None:
    save(folder, "annotations/a.json", {"video_1": {"metadata": {"split": "test"}, "object_tracking": [TRACK]}})
    (video,) = load_dataset(folder).videos
    assert (video.split, video.n_frames, video.frame_rate, video.height) == ("test", 6, 30.0, 48)


@pytest.mark.parametrize(
    "content", [[], {}, {"a": 1}, [1, 2], {"model": {"layers": 3}}, {"results": [{"x": 1}]}, "text"]
)
def test_other_json_beside_the_videos_is_passed_over(
    folder: Path, content: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = save(folder, "results.json", content)
    assert load_dataset(folder).videos[0].questions == ()
    assert f"{path}: this JSON file holds no annotations: it is passed over" in caplog.text


def test_what_a_made_world_records_about_itself_is_no_finding(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    save(folder, "summary.json", {"n_videos": 1})
    load_dataset(folder)
    assert "summary.json: this JSON file holds no annotations" in caplog.text  # somebody else's
    caplog.clear()
    save(folder, "config.json", {"stage": "world"})
    load_dataset(folder)
    assert not caplog.text


def test_a_damaged_file_beside_the_videos_is_passed_over_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder, "results.json", {}).write_text("{")
    load_dataset(folder)
    assert "results.json: this is no JSON file" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([question(0)], r"\[0\] does not name its video in `video_id`"),
        ({"video_1": [1, 2]}, "is a list of something else than `question` and `options`"),
        ({"video_1": 3}, "is not a JSON object"),
        (3, "neither a JSON object keyed by video id nor a list"),
    ],
)
def test_other_json_among_the_annotations_is_refused(folder: Path, content: object, reason: str) -> None:
    path = save(folder, "annotations/a.json", content)
    with pytest.raises(UserError, match=reason) as info:
        load_dataset(folder)
    assert str(path) in str(info.value)


def test_two_entries_of_one_id_in_one_file_are_not_told_to_be_in_two(folder: Path) -> None:
    save(folder, "annotations/a.json", {"video_1": [question(4), question(4)]})
    with pytest.raises(UserError, match=r"`mc_question`\[1\]: its id is that of another entry of `mc_question` \(4\)"):
        load_dataset(folder)


def test_cut_frames_by_file_name_and_two_files_that_cut_elsewhere(folder: Path) -> None:
    save(folder, "data.json", {"video_1": [question(0)]})
    save(folder, "cut_frame_mapping_valid.json", {"video_1.mp4": 3, "video_9": -1})
    assert load_dataset(folder).video("video_1").cut_frame == 3
    save(folder, "annotations/cut_frame_mapping_train.json", {"video_1": 4})
    with pytest.raises(UserError, match=r"another file cuts this video elsewhere \(before frame 3, not 4\)"):
        load_dataset(folder)


def test_ids_and_labels_cannot_write_to_the_terminal(folder: Path) -> None:
    save(folder, "annotations/a\x1b[31m.json", {"vi\ndeo\x1b[0m": {"object_tracking": [{**TRACK, "label": 3}]}})
    with pytest.raises(UserError) as info:
        load_dataset(folder)
    assert str(info.value).isprintable()


def test_annotations_that_lie_deeper_are_found_for_a_message(tmp_path: Path) -> None:
    for place in ("annotations", "train-valid/annotations", "a/b/annotations", "a/annotations"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "annotations" / "all_train.json").write_text("{}")
    (tmp_path / "train-valid" / "annotations" / "all_train.json").write_text("{}")
    (tmp_path / "a" / "annotations" / "cut_frame_mapping_train.json").write_text("{}")
    assert deeper_annotations(tmp_path) == [tmp_path / "train-valid"]
