from pathlib import Path

import numpy as np
import pytest

from collect.video.decode import choose_ids, decode_clip, decode_frames, frame_at, sample_ids
from collect.video.file import DecodeError
from collect.video.sampling import FrameSampling
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


def picked(word: str, times_s: list[float]) -> list[int]:
    return choose_ids(FrameSampling.parse(word), np.array(times_s)).tolist()


def test_a_rate_takes_the_frame_on_the_screen() -> None:
    # Shown at 0, 0.5, 1.0, 1.5: frame 0 stays until 0.6, frame 1 until 1.4, frame 2 until the end.
    assert picked("2fps", [0.0, 0.6, 1.4, 1.9]) == [0, 0, 1, 2]
    assert picked("2fps", [0.0]) == [0]


def test_a_rate_allows_for_rounded_times() -> None:
    times_s = [round(i / 30, 3) for i in range(61)]  # as Matroska keeps them
    assert picked("30fps", times_s) == list(range(61))
    assert picked("10fps", times_s) == list(range(0, 61, 3))


def test_a_rate_that_gives_too_many_frames_spreads_as_many_as_allowed() -> None:
    times_s = [i / 10 for i in range(101)]  # ten seconds: at 2 fps 21 frames
    assert picked("2fps:21", times_s) == list(range(0, 101, 5))
    assert picked("2fps:5", times_s) == [0, 25, 50, 75, 100]


def test_frames_by_id_and_by_rate(video: Path) -> None:
    clip = decode_clip(video, "v", FrameSampling.parse("30,2,2"))
    assert [number_of(f) for f in clip.frames] == clip.frame_ids.tolist() == [30, 2, 2]
    # Forty frames at 30 fps: times 0, 0.25, ..., 1.25 of the last one's 1.3; 0.25 is frame 7.5, so 7 is still shown.
    assert decode_clip(video, "v", FrameSampling.parse("4fps")).frame_ids.tolist() == [0, 7, 15, 22, 30, 37]
    assert decode_clip(video, "v", FrameSampling.parse("4fps"), cut_frame=16).frame_ids.tolist() == [0, 7, 15]


def test_a_frame_after_the_cut_is_refused(video: Path) -> None:
    assert len(decode_clip(video, "v", FrameSampling.parse("0,20"), cut_frame=21).frames) == 2
    with pytest.raises(DecodeError, match="no frame 21: it has 21 frames before its cut"):
        decode_clip(video, "v", FrameSampling.parse("0,21"), cut_frame=21)


def test_clip_has_the_frames_and_times_it_says(video: Path) -> None:
    clip = decode_clip(video, "v", frames=4)
    assert clip.frames.shape == (4, 48, 64, 3)
    assert (clip.height, clip.width) == (48, 64)
    assert [number_of(f) for f in clip.frames] == clip.frame_ids.tolist() == [0, 13, 26, 39]
    assert np.allclose(clip.times_s, clip.frame_ids / 30)
    assert (clip.frame_rate, clip.n_frames) == (30.0, 40)


def test_clip_ends_before_the_cut(video: Path) -> None:
    clip = decode_clip(video, "v", frames=3, cut_frame=21)
    assert clip.frame_ids.tolist() == [0, 10, 20]
    assert clip.n_frames == 21


@pytest.mark.parametrize("cut_frame", [0, -1, 1000])
def test_a_cut_outside_the_video_cuts_nothing(video: Path, cut_frame: int) -> None:
    assert decode_clip(video, "v", frames=2, cut_frame=cut_frame).frame_ids.tolist() == [0, 39]


def test_frames_come_in_the_order_asked(video: Path) -> None:
    assert [number_of(f) for f in decode_frames(video, [30, 2, 2])] == [30, 2, 2]
    assert number_of(frame_at(video, 17)) == 17


def test_a_frame_that_is_not_there_is_refused(video: Path) -> None:
    with pytest.raises(DecodeError, match="no frame 40: it has 40 frames"):
        decode_frames(video, [40])
