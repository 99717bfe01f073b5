"""docs/own_data.md is followed to the letter: its examples are read, and its commands run, with real videos."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import video_sae
from ask.questions import items_of
from collect.config import CheckConfig
from collect.data.check import check
from collect.data.perception_test import load_dataset
from demo.world.generate import WorldConfig, generate
from tests.collect.video_files import noise, write_video

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
OBJECTS, IN_PIXELS, QUESTIONS = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^video-sae .*$", PAGE, re.MULTILINE)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the page: two clips of two seconds, 128 x 96, and both files."""
    folder = tmp_path / "mydata"
    for number in (1, 2):
        write_video(folder / "videos" / f"clip_{number}.mp4", [noise(96, 128, seed=number)] * 60)
    (folder / "annotations").mkdir()
    (folder / "annotations" / "objects.json").write_text(OBJECTS)
    (folder / "annotations" / "questions.json").write_text(QUESTIONS)
    return folder


def test_the_examples_are_sound(data: Path) -> None:
    report = check(CheckConfig(data=data))
    assert report.findings == ()
    assert "3 tracks, 5 boxes, 1 actions, 1 sounds, 3 questions, 2 with a counting tag" in report.counts


def test_the_examples_mean_what_the_page_says(data: Path) -> None:
    dataset = load_dataset(data)
    cup, hand = dataset.video("clip_1").tracks
    assert (cup.label, cup.times_s.tolist(), hand.times_s.tolist()) == ("red cup", [0.0, 1.0], [1.0])
    (action,), (sound,) = dataset.video("clip_1").actions, dataset.video("clip_2").sounds
    assert (action.start_s, action.end_s, action.parent_objects) == (0.0, 1.0, (0, 1))
    assert (sound.start_s, sound.end_s) == (0.5, 0.9)
    items = items_of(dataset, ("object counting", "event counting"), held_out=set())
    assert [(item.item_id, item.values, item.answer_id) for item in items] == [
        ("clip_1/0", (1.0, 2.0, 3.0), 0),
        ("clip_1/1", None, 0),
        ("clip_2/0", (0.0, 1.0, 2.0), 1),
    ]


def test_pixels_and_seconds_are_read_as_the_page_says(data: Path) -> None:
    (data / "annotations" / "objects.json").write_text(IN_PIXELS)
    (data / "annotations" / "questions.json").unlink()
    (data / "videos" / "clip_2.mp4").unlink()
    assert check(CheckConfig(data=data)).findings == ()
    (track,) = load_dataset(data).video("clip_1").tracks
    np.testing.assert_allclose(
        track.boxes, [[12 / 128, 20 / 96, 42 / 128, 52 / 96], [60 / 128, 40 / 96, 90 / 128, 72 / 96]]
    )
    assert (track.times_s.tolist(), track.frame_ids.tolist()) == ([0.0, 1.0], [0, 30])


def smallest(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the fields of the page alone."""
    return {
        "object_tracking": [
            {name: track[name] for name in ("id", "label", "frame_ids", "bounding_boxes")}
            for track in record["object_tracking"]
        ],
        "action_localisation": [
            {name: action[name] for name in ("label", "timestamps", "parent_objects")}
            for action in record["action_localisation"]
        ],
    }


@pytest.mark.slow
def test_every_command_of_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dozen videos with the page's fields alone, from a folder with `mydata` and `demo/weights` in it."""
    world = generate(tmp_path / "world", WorldConfig(seed=3, n_videos=12), workers=2)
    data = tmp_path / "mydata"
    (data / "annotations").mkdir(parents=True)
    (world / "videos").rename(data / "videos")
    records: dict[str, Any] = {}
    for path in sorted((world / "annotations").glob("*.json")):
        records.update(json.loads(path.read_text()))
    questions = {
        name: [{key: q[key] for key in ("question", "options", "answer_id", "tag")} for q in record["mc_question"]]
        for name, record in records.items()
    }
    objects = {name: smallest(record) for name, record in records.items()}
    (data / "annotations" / "objects.json").write_text(json.dumps(objects))
    (data / "annotations" / "questions.json").write_text(json.dumps(questions))
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "weights").symlink_to(ROOT / "demo" / "weights")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        assert video_sae.main(shlex.split(command)[1:]) == 0, command
    assert (tmp_path / "runs" / "mine" / "report" / "index.html").is_file()


def test_the_page_has_a_command_for_every_stage() -> None:
    names = [shlex.split(command)[1] for command in COMMANDS]
    assert names == ["check", "profile", "collect", "train", "features", "steer", "report"]
