"""What a file shows is what decodes, in the decoder's order, whatever its headers say."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collect.video.decode import decode_clip
from collect.video.file import DecodeError, read_frames
from collect.video.sampling import FrameSampling
from tests.collect.untruths import FORMATS, N_FRAMES, Untruth, sequential, untruths, write

Read = TypeVar("Read")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("untruths")


def whole(folder: Path, name: str) -> bytes:
    path = folder / f"whole-{name}"
    if not path.exists():
        write(path, FORMATS[name])
    return path.read_bytes()


def attempt(read: Callable[[], Read]) -> Read | str:
    """What is read, or the error's sentence."""
    try:
        return read()
    except DecodeError as error:
        return str(error)


def is_subsequence(some: list[np.ndarray], of: list[np.ndarray]) -> bool:
    rest = iter(of)
    return all(any(np.array_equal(one, other) for other in rest) for one in some)


def check(folder: Path, name: str, lies: list[Untruth]) -> None:
    data = whole(folder, name)
    for lie in lies:
        data = lie.apply(data) or b"\0"
    path = folder / f"v{FORMATS[name].suffix}"
    path.write_bytes(data)
    shown = sequential(path)
    found = attempt(lambda: read_frames(path, lambda times_s: np.arange(len(times_s))))
    samplings = [FrameSampling.parse(word) for word in ("1", "5", "0,", "10fps:7")]
    clips = [attempt(lambda sampling=sampling: decode_clip(path, "v", sampling)) for sampling in samplings]
    if isinstance(found, str):
        assert str(path) in found
        assert clips == [found] * len(clips)
        assert not shown or any(lie.spoils for lie in lies), found
        return
    assert (np.diff(found.all_times_s) > 0).all()
    assert (np.diff(found.ids) > 0).all()
    if len({frame.shape for frame in shown}) > 1:
        return  # frames are brought to one size
    if any(lie.spoils for lie in lies):
        assert is_subsequence(list(found.pixels), shown)
    else:
        assert np.array_equal(found.pixels, np.stack(shown))
        assert found.ids.tolist() == list(range(len(shown)))
    picture_of = dict(zip(found.ids.tolist(), found.pixels, strict=True))
    for clip in clips:
        assert not isinstance(clip, str), clip
        for frame_id, pixels in zip(clip.frame_ids.tolist(), clip.frames, strict=True):
            assert np.array_equal(pixels, picture_of[frame_id]), (frame_id, clip.frame_ids)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_its_frames_in_order(folder: Path, name: str) -> None:
    check(folder, name, [])
    frames = sequential(folder / f"v{FORMATS[name].suffix}")
    assert len(frames) >= N_FRAMES - 1  # bare streams and GIF may merge or lose the last one
    greys = [float(frame.mean()) for frame in frames]
    assert greys == sorted(greys)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, list[Untruth]]:
    name = draw(st.sampled_from(sorted(FORMATS)))
    # FFmpeg fills holes in FFV1 and VP8 without a sign of it, and with whatever its memory holds: no two decodes agree.
    is_silent = FORMATS[name].codec in ("ffv1", "libvpx")
    some = untruths.filter(lambda lie: not lie.spoils) if is_silent else untruths
    return name, draw(st.lists(some, min_size=1, max_size=2))


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=QUIET)
@given(cases())
def test_untruths(folder: Path, case: tuple[str, list[Untruth]]) -> None:
    check(folder, *case)


@pytest.mark.slow
@settings(max_examples=600, deadline=None, suppress_health_check=QUIET)
@given(cases())
def test_many_untruths(folder: Path, case: tuple[str, list[Untruth]]) -> None:
    check(folder, *case)
