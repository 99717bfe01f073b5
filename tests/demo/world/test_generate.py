import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from collect.artefact.lock import LOCK_NAME
from collect.data.perception_test import load_dataset
from collect.errors import UserError
from collect.video.decode import decode_clip
from demo.world.annotate import has_audio
from demo.world.draw import Painter
from demo.world.generate import WorldConfig, balanced_positions, generate
from demo.world.scene import FPS, SAMPLES
from demo.world.script import draw_scene


def scene_of(video_id: str, config: WorldConfig):
    return draw_scene(config.seed, int(video_id.removeprefix("video_")))


def test_the_reader_of_the_benchmark_s_schema_reads_it(tiny_world: Path, world_config: WorldConfig) -> None:
    dataset = load_dataset(tiny_world)
    assert len(dataset.videos) == world_config.n_videos
    assert Counter(v.split for v in dataset.videos) == {"train": 6, "valid": 3}
    for video in dataset.videos:
        scene = scene_of(video.video_id, world_config)
        assert video.path is not None
        assert (video.height, video.width) == (scene.height, scene.width)
        assert video.n_frames == scene.n_frames
        assert video.is_cup_game == (scene.kind == "cups")
        assert video.cut_frame == (scene.n_clip if scene.kind == "cups" else None)
        assert len(video.actions) == len(scene.actions) + len(scene.swaps)


def test_a_decoded_frame_is_the_drawn_one(tiny_world: Path, world_config: WorldConfig) -> None:
    for video in load_dataset(tiny_world).videos[:3]:
        scene = scene_of(video.video_id, world_config)
        assert video.path is not None
        clip = decode_clip(video.path, video.video_id, SAMPLES, video.cut_frame)
        assert np.allclose(clip.times_s, scene.sample_times(), atol=1e-3)
        painter = Painter(scene)
        for frame, t in zip(clip.frames, clip.times_s, strict=True):
            # the codec may blur; on average a value is off by a few of 255
            assert np.abs(frame.astype(float) - painter.frame(float(t))).mean() < 6


def test_files_are_h264_with_sound_where_annotated(tiny_world: Path, world_config: WorldConfig) -> None:
    for video in load_dataset(tiny_world).videos:
        scene = scene_of(video.video_id, world_config)
        with av.open(str(video.path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert bool(container.streams.audio) == has_audio(scene)
        assert bool(video.sounds) <= has_audio(scene)


def test_annotated_boxes_are_the_truth_s_and_persist_while_hidden(tiny_world: Path) -> None:
    hidden = 0
    for video in load_dataset(tiny_world).videos:
        truth = json.loads((tiny_world / "truth" / f"{video.video_id}.json").read_text())
        for track in video.tracks:
            row = truth["tracks"][str(track.id)]
            where = {frame: i for i, frame in enumerate(row["frames"])}
            for frame, box in zip(track.frame_ids, track.boxes, strict=True):
                assert np.allclose(box, row["boxes"][where[int(frame)]], atol=1e-5)
                hidden += row["hidden"][where[int(frame)]]
        assert all(frame % FPS == 0 for track in video.tracks for frame in track.frame_ids)
    assert hidden > 0


def test_is_masked_is_a_list_and_the_truth_of_each_annotated_frame_in_cup_games(tiny_world: Path) -> None:
    annotations = json.loads((tiny_world / "annotations" / "all_train.json").read_text())
    masks = [track["is_masked"] for record in annotations.values() for track in record["object_tracking"]]
    assert all(isinstance(mask, list) for mask in masks)
    seen: set[bool] = set()
    for video in load_dataset(tiny_world).videos:
        truth = json.loads((tiny_world / "truth" / f"{video.video_id}.json").read_text())["tracks"]
        for track in video.tracks:
            row = truth[str(track.id)]
            hidden = dict(zip(row["frames"], row["hidden"], strict=True))
            expected = [video.is_cup_game and bool(hidden[int(frame)]) for frame in track.frame_ids]
            assert track.is_masked.tolist() == expected
            seen |= set(expected)
    assert seen == {False, True}


def test_right_options_stand_equally_often_at_each_place() -> None:
    scenes = [draw_scene(6, i) for i in range(90)]
    places = Counter((item.kind, answer_id) for row in balanced_positions(scenes, 6) for item, answer_id, _ in row)
    for kind in {kind for kind, _ in places}:
        n = [places[kind, place] for place in range(3)]
        assert max(n) - min(n) <= 1, kind


def test_an_interrupted_world_is_completed_to_the_same_files(
    tiny_world: Path, world_config: WorldConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "world"
    generate(folder, world_config)
    damaged = folder / "videos" / "video_2.mp4"
    before = damaged.read_bytes()
    damaged.unlink()
    (folder / "annotations" / "all_valid.json").unlink()
    generate(folder, world_config)
    assert damaged.read_bytes() == before
    for name in ("annotations/all_train.json", "annotations/all_valid.json", "truth/video_4.json"):
        assert (folder / name).read_bytes() == (tiny_world / name).read_bytes()


@pytest.mark.parametrize("finished", [True, False])
def test_a_video_that_has_changed_is_made_again(
    tiny_world: Path, world_config: WorldConfig, tmp_path: Path, finished: bool
) -> None:
    folder = Path(shutil.copytree(tiny_world, tmp_path / "world"))
    video = folder / "videos" / "video_2.mp4"
    video.write_bytes(video.read_bytes()[:1000])
    if not finished:
        (folder / "summary.json").unlink()
    generate(folder, world_config)
    for path in (video, folder / "summary.json"):
        assert path.read_bytes() == (tiny_world / path.relative_to(folder)).read_bytes()


GENERATE = """
import sys
from pathlib import Path
from collect.process.interruption import Interrupted, interruptible
from demo.world.generate import WorldConfig, generate

if __name__ == "__main__":
    with interruptible():
        try:
            generate(Path(sys.argv[1]), WorldConfig(seed=5, n_videos=60), workers=2)
        except Interrupted as error:
            sys.exit(error.status)
"""


def processes_that_name(text: str) -> list[int]:
    """Of all processes, those with a text in their surroundings."""
    found: list[int] = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if place.name.isdecimal() and text.encode() in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_its_processes_end_with_it_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    script, mark = tmp_path / "script.py", f"MARK={tmp_path}"
    script.write_text(GENERATE)
    command, place = [sys.executable, str(script), str(tmp_path / "world")], {"MARK": str(tmp_path)}
    root = str(Path(__file__).resolve().parents[3])
    process = subprocess.Popen(command, env={**os.environ, **place, "PYTHONPATH": root})
    while not list((tmp_path / "world").glob("videos/*.mp4")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    began = time.monotonic()
    assert process.wait(60) == (143 if number is signal.SIGTERM else -9)
    while processes_that_name(mark):
        assert time.monotonic() - began < 30
        time.sleep(0.05)
    assert (number is signal.SIGKILL) == (tmp_path / "world" / LOCK_NAME).exists()
    assert len(list((tmp_path / "world").glob("videos/*.mp4"))) < 60


def test_another_world_does_not_overwrite_this_one(tiny_world: Path) -> None:
    with pytest.raises(UserError, match="seed"):
        generate(tiny_world, WorldConfig(seed=6, n_videos=9))


def test_a_world_needs_two_videos() -> None:
    with pytest.raises(UserError, match="at least 2"):
        WorldConfig(n_videos=1)
