import numpy as np
import pytest

from collect.vlm import VideoVlm
from tests.collect.video_files import noise
from tests.collect.vlm_suite import VideoVlmTests, clip_of


class TestPerceptionLm(VideoVlmTests):
    @pytest.fixture
    def vlm(self, vlm: VideoVlm) -> VideoVlm:
        return vlm

    def test_tokens_divide_the_whole_frame_whatever_its_shape(self, vlm: VideoVlm) -> None:
        # The tiny model squashes frames to 32 px, with patches of 4 px pooled in pairs: 32 / (4 * 2) = 4 a side.
        for height, width in ((48, 64), (64, 48)):
            grid = vlm.prefix(clip_of([noise(height, width)] * 2)).grid
            assert (grid.n_t, grid.n_rows, grid.n_cols) == (2, 4, 4)
            assert np.allclose(grid.box(3, 1), [0.25, 0.75, 0.5, 1.0])

    def test_one_time_step_a_frame(self, vlm: VideoVlm) -> None:
        grid = vlm.prefix(clip_of([noise(48, 64)] * 3)).grid
        assert grid.frame_ids.tolist() == [0, 1, 2]
        assert np.allclose(grid.spans_s, [[0, 1 / 30], [1 / 30, 2 / 30], [2 / 30, 3 / 30]])
