"""The data of a run: found from anywhere, and recognised by its content."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collect.artefact.config_json import write_config
from collect.artefact.run_data import annotations_hash, check_agreement, data_of_run, model_of_run, videos_hash
from collect.config import CollectConfig
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from collect.reading import ActivationStore
from collect.run import collect
from tests.collect.video_files import noise, write_video

IDS = ("a", "b", "c")


def write_data(folder: Path, *, label: str = "ball", n_frames: int = 4) -> Path:
    (folder / "annotations").mkdir(parents=True)
    content = {}
    for number, video_id in enumerate(IDS):
        write_video(folder / "videos" / f"{video_id}.mp4", [noise(48, 64, seed=number + t) for t in range(n_frames)])
        metadata = {"split": "train", "video_id": video_id, "frame_rate": 30.0, "num_frames": n_frames}
        metadata |= {"resolution": [48, 64], "is_cup_game": 0, "is_camera_moving": 0}
        metadata |= {"audio_samples": 0, "audio_sample_rate": 0}
        action = {"id": 0, "label": label, "label_id": 0, "parent_objects": [], "timestamps": [0, 50000]}
        content[video_id] = {"metadata": metadata, "action_localisation": [{**action, "frame_ids": [0, 1]}]}
    (folder / "annotations" / "all.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def collected(tiny_vlm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and the data that it was collected from, by their names relative to that folder."""
    place = tmp_path_factory.mktemp("place")
    write_data(place / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        config = CollectConfig(
            data=Path("data"), model=str(tiny_vlm), out=Path("run"), sites=("resid/1",), frames="2", device="cpu"
        )
        collect(replace(config, shard_rows=256))
    return place


@pytest.fixture
def place(collected: Path, tmp_path: Path) -> Path:
    """The same, copied; its paths are those of the original."""
    return Path(shutil.copytree(collected, tmp_path / "copy"))


def found(run: Path, given: Path | None = None, **others: Path) -> Path:
    return data_of_run(run, ActivationStore.open(run / "activations"), given, others).dataset.folder


def test_data_is_found_from_another_folder_that_has_other_data_of_that_name(
    collected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path / "data", label="cup", n_frames=5)
    monkeypatch.chdir(tmp_path)
    assert found(collected / "run") == collected / "data"


def test_other_data_under_the_same_ids_is_refused_with_a_remedy(collected: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", n_frames=5)
    with pytest.raises(UserError, match=rf"{re.escape(str(other))} has other videos under the ids .* --data\.$"):
        found(collected / "run", other)
    for video in (other / "videos").iterdir():
        video.rename(video.with_stem(f"x{video.stem}"))
    (other / "annotations" / "all.json").unlink()
    with pytest.raises(UserError, match=rf"{re.escape(str(other))} has none of the videos"):
        found(collected / "run", other)


def test_data_that_is_gone_is_asked_for_by_stage_path_and_option(place: Path) -> None:
    paths = place / "run" / "activations" / "config.json"
    config = json.loads(paths.read_text())
    config.pop("checksum")
    config["paths"]["data"] = str(place / "gone")
    paths.write_text(json.dumps(config))
    said = (
        rf"`video-sae collect` took the data of .* from {re.escape(str(place / 'gone'))}, which is not there any more"
    )
    with pytest.raises(UserError, match=f"{said}: .* with --data"):
        found(place / "run")
    assert found(place / "run", place / "data") == place / "data"


def test_data_within_a_run_moves_along_with_it(place: Path) -> None:
    run = place / "run"
    shutil.move(place / "data", run / "data")
    path = run / "activations" / "config.json"
    config = json.loads(path.read_text())
    config.pop("checksum")
    config["paths"] |= {"run": "/once/runs/a", "data": "/once/runs/a/data"}
    path.write_text(json.dumps(config))
    assert found(run) == run / "data"


def test_changed_annotations_are_refused_unless_they_are_asked_for(place: Path) -> None:
    path = place / "run" / "activations" / "config.json"
    config = json.loads(path.read_text())
    config.pop("checksum")
    config["paths"]["data"] = str(place / "data")
    path.write_text(json.dumps(config))
    assert found(place / "run") == place / "data"
    annotations = place / "data" / "annotations" / "all.json"
    annotations.write_text(annotations.read_text().replace("ball", "cup"))
    with pytest.raises(UserError, match="have changed since `video-sae collect` took its videos from there"):
        found(place / "run")
    assert found(place / "run", place / "data") == place / "data"


def test_two_stages_must_have_taken_the_same_annotations(collected: Path, tmp_path: Path) -> None:
    run, features, steer = collected / "run", tmp_path / "features", tmp_path / "steer"
    write_config(features, "features", {}, {"annotations": "others"}, {"data": Path("/elsewhere")})
    with pytest.raises(UserError, match=r"was made with other annotations .*\(it took those in /elsewhere\)"):
        found(run, collected / "data", features=features)
    known = annotations_hash(load_dataset(collected / "data").videos)
    write_config(features, "features", {}, {"annotations": known}, {"data": collected / "data"})
    assert found(run, features=features, steer=steer) == collected / "data"
    check_agreement(run, {"features": features, "steer": steer})
    write_config(steer, "steer", {}, {"annotations": "others"}, {"data": Path("/elsewhere")})
    with pytest.raises(UserError, match=r"steer was made with other annotations \(it took those in /elsewhere\) than"):
        check_agreement(run, {"features": features, "steer": steer})


def test_the_model_is_found_from_anywhere_or_named(
    place: Path, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    assert model_of_run(place / "run") == str(tiny_vlm)
    path = place / "run" / "activations" / "config.json"
    config = json.loads(path.read_text())
    config.pop("checksum")
    config["paths"]["model"] = "/gone/model"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match="collected with the model in /gone/model, which is not there any more"):
        model_of_run(place / "run")
    del config["paths"]["model"]
    config["arguments"]["model"] = "facebook/Perception-LM-1B"
    path.write_text(json.dumps(config))
    assert model_of_run(place / "run") == "facebook/Perception-LM-1B"
    del config["arguments"]["model"]
    path.write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"config\.json, `arguments` lacks the field `model`: put the old file back, or"
    ):
        model_of_run(place / "run")


def test_hashes_are_of_content_and_not_of_places(tmp_path: Path) -> None:
    one = load_dataset(write_data(tmp_path / "one")).videos
    two = load_dataset(write_data(tmp_path / "two")).videos
    assert videos_hash(one) == videos_hash(two)
    assert annotations_hash(one) == annotations_hash(two[::-1])
    cut = (replace(one[0], cut_frame=3), *one[1:])
    assert videos_hash(cut) != videos_hash(one)
    assert annotations_hash(cut) != annotations_hash(one)
    later = replace(one[0], actions=(replace(one[0].actions[0], end_s=0.06),))
    assert annotations_hash((later, *one[1:])) != annotations_hash(one)


def test_arrays_count_with_all_their_numbers(tmp_path: Path) -> None:
    from collect.data.annotation import Track

    (video, *_) = load_dataset(write_data(tmp_path / "data")).videos

    def with_box(value: float) -> str:
        boxes, ids = np.array([[0.1, 0.2, 0.3, value]]), np.array([0])
        times = np.array([0.0])
        track = Track(
            id=1, label="x", is_occluder=False, is_masked=np.array([False]), boxes=boxes, frame_ids=ids, times_s=times
        )
        return annotations_hash([replace(video, tracks=(track,))])

    assert with_box(0.4) == with_box(0.4)
    assert with_box(0.4) != with_box(0.4000001)
