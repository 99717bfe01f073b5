import json
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from collect.decode import decode_clip
from collect.errors import UserError
from collect.perception_test import load_dataset
from demo.annotate import has_audio
from demo.draw import Painter
from demo.generate import WorldConfig, balanced_positions, generate
from demo.world import FPS, SAMPLES, draw_scene


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


def test_another_world_does_not_overwrite_this_one(tiny_world: Path) -> None:
    with pytest.raises(UserError, match="seed"):
        generate(tiny_world, WorldConfig(seed=6, n_videos=9))


def test_a_world_needs_two_videos() -> None:
    with pytest.raises(UserError, match="at least 2"):
        WorldConfig(n_videos=1)
