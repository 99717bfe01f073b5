"""Tests of where tokens lie: what is painted into a box of a frame must change the token that claims that box."""

from pathlib import Path

import numpy as np
import pytest
import torch

from collect.artefact.json_fields import Fields
from collect.tokens.grid import TokenGrid
from collect.video.decode import Clip, decode_clip
from collect.vlm import Prefix, VideoVlm
from collect.vlm.conformance.clips import clip_of, noise, painted, write_mp4
from collect.vlm.conformance.subject import N_FRAMES, Subject

SHAPES = ((96, 128), (128, 96), (72, 128))


class PlaceTests(Subject):
    """Grids, and squares painted into them."""

    @pytest.mark.parametrize(("height", "width"), SHAPES)
    @pytest.mark.parametrize("place", [0.0, 0.3, 0.55, 1.0])
    def test_a_painted_box_changes_the_token_that_lies_there_most(
        self, vlm: VideoVlm, height: int, width: int, place: float
    ) -> None:
        blank = clip_of([noise(height, width)] * N_FRAMES)
        check_painted(vlm, blank, "projector", place)

    @pytest.mark.parametrize(("height", "width"), SHAPES[:2])
    @pytest.mark.parametrize("place", [0.3, 0.8])
    def test_a_painted_box_changes_the_patch_that_lies_there_most(
        self, vlm: VideoVlm, height: int, width: int, place: float
    ) -> None:
        blank = clip_of([noise(height, width)] * N_FRAMES)
        check_painted(vlm, blank, "vision/0", place)

    def test_a_box_painted_into_a_real_video_is_found_again(self, vlm: VideoVlm, tmp_path: Path) -> None:
        blank = clip_of([noise(240, 320)] * N_FRAMES)
        grid = vlm.prefix(blank).grid
        k = round(0.6 * grid.n_tokens)
        t, row, col = grid.coords()[k]
        pair = (blank, painted(blank, grid.box(int(row), int(col)), int(grid.frame_ids[t])))
        prefixes = []
        for name, clip in zip(("plain.mp4", "painted.mp4"), pair, strict=True):
            path = write_mp4(tmp_path / name, clip.frames)
            prefixes.append(vlm.prefix(decode_clip(path, "v", N_FRAMES)))
        before, after = vlm.visual_residuals(prefixes, ["projector"])["projector"]
        assert int((after - before).norm(dim=1).argmax()) == k

    @pytest.mark.parametrize("n_frames", [1, 4, 5])
    def test_grid_has_one_coordinate_per_visual_token(self, vlm: VideoVlm, n_frames: int) -> None:
        clip = clip_of([noise(48, 64, seed=i) for i in range(n_frames)])
        prefix = vlm.prefix(clip)
        assert len(prefix.visual_positions) == prefix.grid.n_tokens == len(prefix.grid.coords())
        assert prefix.grid.frame_ids[0] == clip.frame_ids[0]
        assert prefix.grid.n_t == -(-n_frames // self.frames_per_step)
        assert prefix.input_ids.shape[1] == prefix.feature_positions[-1] + 1  # nothing after the last placeholder
        is_visual = prefix.input_ids[0] == vlm.family.visual_token_id
        assert torch.equal(is_visual.nonzero()[:, 0], prefix.feature_positions)

    def test_a_grid_survives_the_store(self, vlm: VideoVlm, prefix: Prefix) -> None:
        for grid in (prefix.grid, vlm.grid(prefix, "vision/0")):
            again = TokenGrid.from_fields(Fields(grid.to_json(), "grid"))
            assert np.array_equal(again.boxes, grid.boxes)
            assert np.array_equal(again.coords(), grid.coords())

    def test_clips_of_other_layout_are_told_apart(self, vlm: VideoVlm, prefix: Prefix) -> None:
        longer = vlm.prefix(clip_of([noise(48, 64)] * (N_FRAMES + 2)))
        assert longer.layout != prefix.layout
        turned = vlm.prefix(clip_of([noise(64, 48)] * N_FRAMES))
        same = (turned.grid.n_rows, turned.grid.n_cols) == (prefix.grid.n_rows, prefix.grid.n_cols)
        assert (turned.layout == prefix.layout) == same


def check_painted(vlm: VideoVlm, blank: Clip, site: str, place: float) -> None:
    """Paint the token at a place from 0 (the first) to 1 (the last), and find it among the hidden states at a site."""
    grid = vlm.grid(vlm.prefix(blank), site)
    k = round(place * (grid.n_tokens - 1))
    t, row, col = grid.coords()[k]
    frame = blank.frame_ids.tolist().index(int(grid.frame_ids[t]))
    pair = (blank, painted(blank, grid.box(int(row), int(col)), frame))
    before, after = vlm.visual_residuals([vlm.prefix(clip) for clip in pair], [site])[site]
    assert len(before) == grid.n_tokens
    assert int((after - before).norm(dim=1).argmax()) == k
