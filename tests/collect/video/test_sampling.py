from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collect.errors import UserError
from collect.video.sampling import DEFAULT_FPS_CAP, MAX_FRAMES, FrameSampling

fields = st.one_of(
    st.fixed_dictionaries({"n": st.integers(1, MAX_FRAMES)}),
    st.fixed_dictionaries({"fps": st.floats(1e-7, 1e6), "max_n": st.integers(1, MAX_FRAMES)}),
    st.fixed_dictionaries({"ids": st.lists(st.integers(0, 10**6), min_size=1, max_size=9).map(tuple)}),
)


@given(fields)
def test_a_rule_is_read_back_from_its_word(chosen: dict[str, Any]) -> None:
    rule = FrameSampling(**chosen)
    assert FrameSampling.parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("16", FrameSampling(n=16)),
        (" 2fps ", FrameSampling(fps=2.0, max_n=DEFAULT_FPS_CAP)),
        ("0.5FPS:32", FrameSampling(fps=0.5, max_n=32)),
        (".5 fps", FrameSampling(fps=0.5)),
        ("0,30, 60", FrameSampling(ids=(0, 30, 60))),
        ("60,0,", FrameSampling(ids=(60, 0))),
        ("30,", FrameSampling(ids=(30,))),
    ],
)
def test_words(word: str, rule: FrameSampling) -> None:
    assert FrameSampling.parse(word) == rule


@pytest.mark.parametrize("word", ["", "x", "-3", "2 fps:", "fps", "1,,2", ",1", "1.5", "1e3fps", "2fps:3.5", "1;2"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(UserError, match="does not say which frames"):
        FrameSampling.parse(word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("0", "1 to 4096 frames, not 0"),
        ("4097", "1 to 4096 frames, not 4097"),
        ("2fps:0", "1 to 4096 frames, not 0"),
        ("2fps:9999", "1 to 4096 frames, not 9999"),
        ("0fps", "picks no frames"),
        (",".join(["1"] * 4097), "not 4097"),
    ],
)
def test_too_few_or_too_many_frames_are_refused(word: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        FrameSampling.parse(word)


def test_a_rule_is_one_of_three() -> None:
    with pytest.raises(UserError, match="exactly one"):
        FrameSampling()
    with pytest.raises(UserError, match="exactly one"):
        FrameSampling(n=3, fps=2.0)
    with pytest.raises(UserError, match="count from 0"):
        FrameSampling(ids=(3, -1))


def test_number_of_frames() -> None:
    assert FrameSampling.parse("16").n_of(3.0) == 16
    assert FrameSampling.parse("0,7").n_of(3.0) == 2
    assert FrameSampling.parse("2fps").n_of(0.0) == 1
    assert FrameSampling.parse("2fps").n_of(3.0) == 7  # at 0, 0.5, ..., 3.0
    assert FrameSampling.parse("2fps").n_of(3.4) == 7
    assert FrameSampling.parse("2fps:5").n_of(3.4) == 5
    assert FrameSampling.parse("2fps:5").n_at_most == 5
