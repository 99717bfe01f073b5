"""What the suite cannot know: where and when each family's tokens lie, worked out by hand."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from collect.vlm import VideoVlm
from collect.vlm.conformance import clip_of, noise


@functools.cache
def uneven_times() -> Any:
    """Frames at 0, 0.1, 0.2 and 3 s, though the average rate would put them a second apart."""
    clip = clip_of([noise(48, 64, seed=i) for i in range(4)])
    return dataclasses.replace(clip, times_s=np.array([0.0, 0.1, 0.2, 3.0]), frame_rate=1.0, n_frames=4)


def test_qwen3_is_told_when_its_frames_are_shown(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    # Middle of the first and the last frame of a step: (0 + 0.1) / 2 and (0.2 + 3) / 2.
    vlm = tiny_vlms("qwen3_vl")
    text = vlm.family.processor.tokenizer.decode(vlm.prefix(uneven_times()).input_ids[0])
    assert text.count("seconds>") == 2
    assert "<0.1 seconds>" in text
    assert "<1.6 seconds>" in text


def test_smolvlm_is_told_when_its_frames_are_shown(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    vlm = tiny_vlms("smolvlm")
    text = vlm.family.processor.tokenizer.decode(vlm.prefix(uneven_times()).input_ids[0])
    assert [f"Frame from 00:0{second}:" in text for second in range(4)] == [True, False, False, True]
    assert "four frames from a 0:00:04" in text


def test_qwen25_counts_time_in_its_positions(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    # Two positions a second, two steps of two frames; frames are 1 s apart on average: the second step is at 2 * 2 = 4.
    vlm = tiny_vlms("qwen2_5_vl")
    prefix = vlm.prefix(uneven_times())
    assert prefix.position_ids is not None
    assert prefix.next_position is not None
    start = int(prefix.visual_positions[0])
    temporal = prefix.position_ids[0, prefix.visual_positions] - start
    assert temporal.reshape(prefix.grid.n_t, -1).unique_consecutive(dim=1).tolist() == [[0], [4]]
    # Text goes on after the larger side of a frame.
    assert prefix.next_position == start + max(prefix.grid.n_rows, prefix.grid.n_cols)


def test_gemma3_frames_are_blocks(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    prefix = tiny_vlms("gemma3").prefix(clip_of([noise(48, 64)] * 3))
    assert prefix.blocks is not None
    assert prefix.blocks[prefix.visual_positions].tolist() == [0] * 16 + [1] * 16 + [2] * 16
    assert int((prefix.blocks >= 0).sum()) == 48


def test_onevision_newline_has_no_place(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    prefix = tiny_vlms("llava_onevision").prefix(clip_of([noise(48, 64)] * 2))
    assert len(prefix.feature_positions) == len(prefix.visual_positions) + 1 == 2 * 9 + 1


def test_next_video_sees_the_middle_of_the_frame(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    # 48 x 64 becomes 32 x int(32 * 64 / 48) = 42, cropped by int(10 / 2) = 5 on the left; tokens are 8 px.
    grid = tiny_vlms("llava_next_video").prefix(clip_of([noise(48, 64)] * 2)).grid
    assert np.allclose(grid.col_spans, [[5 / 42, 13 / 42], [13 / 42, 21 / 42], [21 / 42, 29 / 42], [29 / 42, 37 / 42]])
    assert np.allclose(grid.row_spans[[0, -1]], [[0, 0.25], [0.75, 1]])


def test_qwen_keeps_the_shape_of_the_frame(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    # Tokens are 16 px: 48 x 80 are 3 x 5 of them, which lies within the budget of 4 to 20.
    for family in ("qwen2_5_vl", "qwen3_vl"):
        grid = tiny_vlms(family).prefix(clip_of([noise(48, 80)] * 4)).grid
        assert (grid.n_t, grid.n_rows, grid.n_cols) == (2, 3, 5)
        assert np.allclose(grid.spans_s, [[0, 2 / 30], [2 / 30, 4 / 30]])
