from pathlib import Path

import numpy as np
import pytest

from collect.decode import decode_clip, decode_frames, frame_at, sample_ids
from collect.video_file import DecodeError
from tests.collect.video_files import number_of, numbered, write_video

LONG_GROUPS = {"crf": "4", "g": "12", "bf": "3"}


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty numbered frames in groups of twelve with B-frames."""
    return write_video(tmp_path_factory.mktemp("video") / "v.mp4", numbered(40), options=LONG_GROUPS)


def test_sample_ids_reach_from_the_first_to_the_last_frame() -> None:
    # 0, 39/3 = 13, 26, 39
    assert sample_ids(40, 4).tolist() == [0, 13, 26, 39]


def test_sample_ids_repeat_in_a_short_video() -> None:
    assert sample_ids(2, 4).tolist() == [0, 0, 1, 1]


def test_clip_has_the_frames_and_times_it_says(video: Path) -> None:
    clip = decode_clip(video, "v", n_frames=4)
    assert clip.frames.shape == (4, 48, 64, 3)
    assert (clip.height, clip.width) == (48, 64)
    assert [number_of(f) for f in clip.frames] == clip.frame_ids.tolist() == [0, 13, 26, 39]
    assert np.allclose(clip.times_s, clip.frame_ids / 30)
    assert (clip.frame_rate, clip.n_frames) == (30.0, 40)


def test_clip_ends_before_the_cut(video: Path) -> None:
    clip = decode_clip(video, "v", n_frames=3, cut_frame=21)
    assert clip.frame_ids.tolist() == [0, 10, 20]
    assert clip.n_frames == 21


@pytest.mark.parametrize("cut_frame", [0, -1, 1000])
def test_a_cut_outside_the_video_cuts_nothing(video: Path, cut_frame: int) -> None:
    assert decode_clip(video, "v", n_frames=2, cut_frame=cut_frame).frame_ids.tolist() == [0, 39]


def test_frames_come_in_the_order_asked(video: Path) -> None:
    assert [number_of(f) for f in decode_frames(video, [30, 2, 2])] == [30, 2, 2]
    assert number_of(frame_at(video, 17)) == 17


def test_a_frame_that_is_not_there_is_refused(video: Path) -> None:
    with pytest.raises(DecodeError, match="no frame 40: it has 40 frames"):
        decode_frames(video, [40])
