"""Clips that are decoded ahead of a pass are those that are decoded when they are asked for."""

import threading
from pathlib import Path

import pytest
import torch

import ask.cases as module
from ask.cases import Clips
from collect.data.perception_test import Dataset, load_dataset
from collect.errors import UserError
from collect.video.sampling import FrameSampling
from collect.vlm import Prefix, load_vlm

FRAMES = FrameSampling(n=4)


@pytest.fixture(scope="module")
def dataset(tiny_world: Path) -> Dataset:
    return load_dataset(tiny_world)


def clips_of(tiny_vlm: Path, dataset: Dataset) -> Clips:
    return Clips(load_vlm(str(tiny_vlm)), dataset.video, FRAMES)


def assert_same(one: Prefix, other: Prefix) -> None:
    assert one.features is not None
    assert other.features is not None
    torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
    torch.testing.assert_close(one.input_ids, other.input_ids)
    assert one.grid.frame_ids.tolist() == other.grid.frame_ids.tolist()


def test_a_pass_gives_each_video_its_own_prefix_decoded_in_another_thread(
    tiny_vlm: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [video.video_id for video in dataset.videos]
    clips = clips_of(tiny_vlm, dataset)
    expected = {name: clips[name] for name in names}
    threads: dict[str, int] = {}
    decode = module.decode_clip

    def noted(path: Path, video_id: str, *rest: object) -> object:
        threads[video_id] = threading.get_ident()
        return decode(path, video_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "decode_clip", noted)
    seen: list[str] = []
    for name in clips.in_turn(names):
        seen.append(name)
        assert threads.keys() >= set(seen), "not decoded before its turn"
        assert_same(clips[name], expected[name])
    assert seen == names
    assert threading.get_ident() not in threads.values()
    assert_same(clips[names[0]], expected[names[0]])  # after the pass, when it is asked for
    assert threads[names[0]] == threading.get_ident()


def test_who_asks_out_of_turn_gets_what_was_asked_for(tiny_vlm: Path, dataset: Dataset) -> None:
    names = [video.video_id for video in dataset.videos]
    clips = clips_of(tiny_vlm, dataset)
    last = clips[names[-1]]
    turn = iter(clips.in_turn(names))
    next(turn)
    assert_same(clips[names[-1]], last)
    turn.close()  # type: ignore[attr-defined]  # a generator


def test_a_video_without_pictures_is_refused_when_its_turn_has_come(
    tiny_vlm: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [video.video_id for video in dataset.videos]
    empty = tmp_path / "empty.mp4"
    empty.touch()
    path = dataset.video(names[1]).path
    decode = module.decode_clip
    monkeypatch.setattr(module, "decode_clip", lambda given, *rest: decode(empty if given == path else given, *rest))
    clips = clips_of(tiny_vlm, dataset)
    turn = iter(clips.in_turn(names))
    assert next(turn) == names[0]
    assert clips[names[0]].features is not None
    with pytest.raises(UserError, match=r"empty\.mp4"):
        next(turn)
