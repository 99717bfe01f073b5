import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collect.data.annotation import ANSWER_WITHHELD
from collect.data.perception_test import load_dataset, read_ids
from collect.errors import UserError
from tests.collect.video_files import numbered, write_video

VIDEO: dict[str, Any] = {
    "metadata": {
        "split": "valid",
        "video_id": "video_7",
        "frame_rate": 29.97,
        "num_frames": 600,
        "resolution": [720, 1280],
        "audio_samples": 1,
        "audio_sample_rate": 48000,
        "is_cup_game": 1,
        "is_camera_moving": 0,
    },
    "object_tracking": [
        {
            "id": 4,
            "label": "red box",
            "is_occluder": 0,
            "is_masked": [0, 1],
            "bounding_boxes": [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]],
            "initial_tracking_box": [1, 0],
            "frame_ids": [0, 30],
            "timestamps": [0, 1_000_000],
        }
    ],
    "point_tracking": [],
    "action_localisation": [
        {
            "id": 0,
            "label": "Lifting something",
            "label_id": 12,
            "parent_objects": [4, -1],
            "timestamps": [500_000, 2_250_000],
            "frame_ids": [15, 68],
        }
    ],
    "sound_localisation": [
        {
            "id": 1,
            "label": "Hit",
            "label_id": 2,
            "parent_objects": [],
            "timestamps": [0, 100_000],
            "frame_ids": [0, 3],
            "is_visible": 1,
        }
    ],
    "mc_question": [
        {
            "id": 31,
            "question": "How many boxes?",
            "options": ["2", "3", "4 or more"],
            "answer_id": 1,
            "area": "memory",
            "reasoning": "descriptive",
            "tag": ["object counting"],
        }
    ],
    "grounded_question": None,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "video_7.mp4", numbered(2))
    save(tmp_path, "all_valid.json", {"video_7": VIDEO})
    return tmp_path


def save(folder: Path, name: str, content: object) -> Path:
    path = folder / "annotations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_everything_annotated_is_read(folder: Path) -> None:
    (video,) = load_dataset(folder).videos
    assert video.path == folder / "videos" / "video_7.mp4"
    assert (video.split, video.n_frames, video.height, video.width) == ("valid", 600, 720, 1280)
    assert (video.is_cup_game, video.is_camera_moving, video.cut_frame) == (True, False, None)
    (track,) = video.tracks
    assert (track.id, track.label, track.is_occluder, track.is_masked.tolist()) == (4, "red box", False, [False, True])
    assert track.boxes.tolist() == [[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]]
    assert track.frame_ids.tolist() == [0, 30]
    assert track.times_s.tolist() == [0.0, 1.0]
    (action,) = video.actions
    assert (action.label_id, action.parent_objects, action.start_s, action.end_s) == (12, (4, -1), 0.5, 2.25)
    assert action.is_visible is None
    assert video.sounds[0].is_visible is True
    (question,) = video.questions
    assert (question.id, question.video_id, question.answer_id) == (31, "video_7", 1)
    assert question.options == ("2", "3", "4 or more")
    assert question.tag == ("object counting",)


def test_duration_and_strata(folder: Path) -> None:
    (video,) = load_dataset(folder).videos
    assert video.duration_s == pytest.approx(600 / 29.97)  # 20.02 s, the third bin
    assert video.strata == (False, True, 2)


def test_tasks_in_files_of_their_own_are_joined(folder: Path) -> None:
    one, two = copy.deepcopy(VIDEO), copy.deepcopy(VIDEO)
    del one["mc_question"], two["object_tracking"], two["action_localisation"], two["sound_localisation"]
    save(folder, "all_valid.json", {"video_7": one})
    save(folder, "mc_question_valid.json", {"video_7": two})
    (video,) = load_dataset(folder).videos
    assert (len(video.tracks), len(video.actions), len(video.sounds), len(video.questions)) == (1, 1, 1, 1)


@pytest.mark.parametrize("place", [".", "annotations"])
def test_cut_frames(folder: Path, place: str) -> None:
    other = copy.deepcopy(VIDEO)
    save(folder, "all_valid.json", {"video_7": VIDEO, "video_8": other})
    (folder / place / "cut_frame_mapping_valid.json").write_text(json.dumps({"video_7": 90, "video_8": 0}))
    dataset = load_dataset(folder)
    assert (dataset.video("video_7").cut_frame, dataset.video("video_8").cut_frame) == (90, None)


def test_annotations_right_in_the_data_folder(folder: Path) -> None:
    (folder / "annotations" / "all_valid.json").rename(folder / "all_valid.json")
    (folder / "config.json").write_text("[]")  # somebody else's
    (video,) = load_dataset(folder).videos
    assert (len(video.tracks), len(video.questions)) == (1, 1)


def test_what_two_files_say_alike_counts_once(folder: Path) -> None:
    save(
        folder,
        "mc_question_valid.json",
        {"video_7": {"metadata": VIDEO["metadata"], "mc_question": VIDEO["mc_question"]}},
    )
    (video,) = load_dataset(folder).videos
    assert [question.id for question in video.questions] == [31]


def test_two_files_that_contradict_each_other_are_named(folder: Path) -> None:
    other = copy.deepcopy(VIDEO)
    other["mc_question"][0]["answer_id"] = 2
    save(folder, "mc_question_valid.json", {"video_7": other})
    with pytest.raises(UserError, match=r"mc_question_valid\.json.* and .*all_valid\.json.* differ: remove one"):
        load_dataset(folder)


@pytest.mark.parametrize("value", [None, [], {}, False, "absent"])
def test_a_task_that_a_video_lacks(folder: Path, value: object) -> None:
    video = copy.deepcopy(VIDEO)
    for task in ("object_tracking", "action_localisation", "sound_localisation", "mc_question"):
        video[task] = value
        if value == "absent":
            del video[task]
    save(folder, "all_valid.json", {"video_7": video})
    (read,) = load_dataset(folder).videos
    assert (read.tracks, read.actions, read.sounds, read.questions) == ((), (), (), ())


@pytest.mark.parametrize("value", [None, -1, "absent"])
def test_the_roles_of_an_object_outside_cup_games_may_be_left_open(folder: Path, value: object) -> None:
    video = copy.deepcopy(VIDEO)
    for name in ("is_occluder", "is_masked"):
        video["object_tracking"][0][name] = value
        if value == "absent":
            del video["object_tracking"][0][name]
    save(folder, "all_valid.json", {"video_7": video})
    (track,) = load_dataset(folder).videos[0].tracks
    assert (track.is_occluder, track.is_masked.tolist()) == (False, [False, False])


def test_a_list_of_ids_chooses_videos(folder: Path) -> None:
    save(folder, "all_valid.json", {f"video_{i}": VIDEO for i in (7, 8, 9)})
    names = folder / "ids.txt"
    names.write_text("# chosen by hand\nvideo_9\n\n video_7.mp4 \nvideo_9\n")
    assert [video.video_id for video in load_dataset(folder, ids=names).videos] == ["video_7", "video_9"]
    assert read_ids(names) == ("video_9", "video_7")
    names.write_text("video_id,task\nvideo_8,mc\n")
    assert read_ids(names) == ("video_8",)


def test_a_list_of_ids_that_does_not_fit(folder: Path) -> None:
    names = folder / "ids.txt"
    names.write_text("video_7\nvideo_1\n")
    with pytest.raises(UserError, match=r"lacks 1 of the 2 videos of .*'video_1'"):
        load_dataset(folder, ids=names)
    names.write_text("\n# nothing\n")
    with pytest.raises(UserError, match="names no video"):
        load_dataset(folder, ids=names)
    with pytest.raises(UserError, match=r"none\.txt does not exist: give a text file with one video id a line"):
        load_dataset(folder, ids=folder / "none.txt")


def test_annotated_videos_without_files_have_no_path(folder: Path) -> None:
    save(folder, "all_valid.json", {"video_9": VIDEO, "video_7": VIDEO})
    dataset = load_dataset(folder)
    assert [video.video_id for video in dataset.videos] == ["video_7", "video_9"]
    assert [video.video_id for video in dataset.videos_with_files] == ["video_7"]


def test_answers_of_the_test_split_are_withheld(folder: Path) -> None:
    video = copy.deepcopy(VIDEO)
    del video["mc_question"][0]["answer_id"]
    save(folder, "all_valid.json", {"video_7": video})
    assert load_dataset(folder).videos[0].questions[0].answer_id == ANSWER_WITHHELD


def test_split_filter(folder: Path) -> None:
    other = copy.deepcopy(VIDEO)
    other["metadata"]["split"] = "train"
    save(folder, "all_train.json", {"video_1": other})
    assert [video.video_id for video in load_dataset(folder, "train").videos] == ["video_1"]
    assert len(load_dataset(folder).videos) == 2
    with pytest.raises(UserError, match="no video of the split 'tests': choose one of train, valid"):
        load_dataset(folder, "tests")


def test_a_folder_of_videos_alone_is_a_dataset(tmp_path: Path) -> None:
    write_video(tmp_path / "b.mp4", numbered(3))
    write_video(tmp_path / "a.mp4", numbered(3))
    dataset = load_dataset(tmp_path)
    assert [video.video_id for video in dataset.videos] == ["a", "b"]
    video = dataset.video("a")
    assert (video.frame_rate, video.n_frames, video.height, video.width) == (30.0, 3, 48, 64)
    assert video.tracks == video.questions == ()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*gone"):
        load_dataset(tmp_path / "gone")


def test_no_videos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no videos"):
        load_dataset(tmp_path)


def test_two_videos_of_one_name(folder: Path) -> None:
    (folder / "videos" / "video_7.mkv").write_bytes(b"")
    with pytest.raises(UserError, match="have one name"):
        load_dataset(folder)


def test_no_such_video(folder: Path) -> None:
    with pytest.raises(UserError, match="no video 'video_1'"):
        load_dataset(folder).video("video_1")


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"video_7": 3}'])
def test_malformed_json_is_named(folder: Path, text: str) -> None:
    path = save(folder, "all_valid.json", {})
    path.write_text(text)
    with pytest.raises(UserError) as info:
        load_dataset(folder)
    assert str(path) in str(info.value)


@pytest.mark.parametrize(
    ("keys", "value", "field"),
    [
        (("metadata",), [], "`metadata`"),
        (("metadata", "frame_rate"), 0, "`frame_rate`"),
        (("metadata", "resolution"), [720], "`resolution`"),
        (("metadata", "is_cup_game"), "yes", "`is_cup_game`"),
        (("object_tracking", 0, "bounding_boxes"), [[0, 0, 1, 1]], "`frame_ids`"),
        (("object_tracking", 0, "bounding_boxes"), [[0, 0, 1], [0, 0, 1]], "`bounding_boxes[0]`"),
        (("object_tracking", 0, "timestamps"), [0], "`timestamps`"),
        (("object_tracking", 0, "label"), 5, "`label`"),
        (("action_localisation", 0, "timestamps"), [0, 1, 2], "`timestamps`"),
        (("action_localisation", 0, "parent_objects"), "4", "`parent_objects`"),
        (("sound_localisation", 0, "is_visible"), 7, "`is_visible`"),
        (("mc_question", 0, "answer_id"), 3, "`answer_id`"),
        (("mc_question", 0, "options"), "ABC", "`options`"),
        (("mc_question",), {"id": 1}, "`mc_question`"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_video(
    folder: Path, keys: tuple[str | int, ...], value: object, field: str
) -> None:
    video = copy.deepcopy(VIDEO)
    place: Any = video
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path = save(folder, "all_valid.json", {"video_7": video})
    with pytest.raises(UserError) as info:
        load_dataset(folder)
    message = str(info.value)
    assert str(path) in message
    assert "'video_7'" in message
    assert field in message


def test_ids_need_not_be_contiguous(folder: Path) -> None:
    video = copy.deepcopy(VIDEO)
    video["object_tracking"] = [{**VIDEO["object_tracking"][0], "id": number} for number in (9, 2, 40)]
    save(folder, "all_valid.json", {"video_7": video})
    assert [track.id for track in load_dataset(folder).videos[0].tracks] == [9, 2, 40]


def test_a_track_without_boxes_is_read(folder: Path) -> None:
    video = copy.deepcopy(VIDEO)
    video["object_tracking"][0] |= {"bounding_boxes": [], "frame_ids": [], "timestamps": [], "is_masked": []}
    save(folder, "all_valid.json", {"video_7": video})
    (track,) = load_dataset(folder).videos[0].tracks
    assert np.array_equal(track.boxes, np.empty((0, 4)))
