import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collect.errors import UserError
from collect.vlm import VideoVlm, load_vlm
from collect.vlm.check import check_prefix
from tests.collect.video_files import noise
from tests.collect.vlm_suite import clip_of


def test_weights_are_frozen_and_in_evaluation_mode(vlm: VideoVlm) -> None:
    assert not vlm.model.training
    assert not any(p.requires_grad for p in vlm.model.parameters())


def test_description_names_the_model(vlm: VideoVlm, tiny_vlm: Path) -> None:
    assert vlm.describe() == {
        "name": str(tiny_vlm),
        "family": "perception_lm",
        "fingerprint": vlm.fingerprint,
        "n_layers": 3,
        "d_model": 48,
        "dtype": "float32",
    }


def test_bfloat16_on_request(tiny_vlm: Path) -> None:
    vlm = load_vlm(str(tiny_vlm), dtype="bfloat16", device="cpu")
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    assert vlm.visual_residuals([prefix], ["resid/1"])["resid/1"].dtype == torch.bfloat16
    emb = vlm.embed([prefix], [vlm.suffix("How many ?")])
    assert vlm.logits_from("resid/1", vlm.residual(emb, "resid/1"), emb).dtype == torch.float32


def test_no_such_site(vlm: VideoVlm) -> None:
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    with pytest.raises(UserError, match=r"no site 'resid/3' in this model: .* 0 to 2"):
        vlm.visual_residuals([prefix], ["resid/3"])


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model folder .*gone: check the path"):
        load_vlm(str(tmp_path / "gone"))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing or is no model configuration"):
        load_vlm(str(tmp_path))


def test_an_unknown_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "teapot"}))
    with pytest.raises(
        UserError, match=r"family 'teapot', which is not supported: use a model of one of .*, perception_lm, "
    ):
        load_vlm(str(tmp_path))


def test_no_such_device(tiny_vlm: Path) -> None:
    with pytest.raises(UserError, match="no device 'abacus'"):
        load_vlm(str(tiny_vlm), device="abacus")


def test_damaged_weights(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vlm"
    shutil.copytree(tiny_vlm, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vlm(str(folder), device="cpu")


def test_the_check_passes_for_what_was_loaded(vlm: VideoVlm) -> None:
    check_prefix(vlm)


def test_visual_tokens_that_see_the_question_are_refused(tiny_vlm: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_vlm, tmp_path / "vlm"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["is_causal"] = False  # transformers then lets every token see every other one
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"differ by .* its visual tokens see the question"):
        load_vlm(str(folder), device="cpu")


@pytest.mark.parametrize("wrong", ["positions", "blocks"])
def test_the_check_finds_wrong_positions_and_masks(
    wrong: str, tiny_vlms: Callable[[str], VideoVlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = tiny_vlms({"positions": "qwen2_5_vl", "blocks": "gemma3"}[wrong])
    monkeypatch.setattr(vlm, wrong, lambda *_: (None, None) if wrong == "positions" else None)
    with pytest.raises(UserError, match="differ by"):
        check_prefix(vlm)


def test_a_processor_that_writes_another_number_of_tokens_is_refused(
    vlm: VideoVlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vlm, "n_unplaced", 1, raising=False)
    with pytest.raises(UserError, match="writes 32 visual tokens where perception_lm has 33"):
        vlm.prefix(clip_of([noise(48, 64)] * 2))


def test_flash_attention_is_refused_where_tokens_see_each_other(
    tiny_vlms: Callable[[str], VideoVlm], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm: Any = tiny_vlms("gemma3")
    monkeypatch.setattr(vlm.model.config.get_text_config(), "_attn_implementation", "flash_attention_2")
    with pytest.raises(UserError, match="flash attention cannot: use --attn-implementation sdpa"):
        type(vlm)(name="tiny", model=vlm.model, processor=vlm.processor, fingerprint="")


def test_a_model_can_be_spread_over_all_devices(tiny_vlm: Path, vlm: VideoVlm) -> None:
    spread = load_vlm(str(tiny_vlm), device="spread")
    prefix = vlm.prefix(clip_of([noise(48, 64)] * 2))
    found, expected = (v.visual_residuals([prefix], ["resid/1"])["resid/1"].cpu() for v in (spread, vlm))
    assert torch.allclose(found, expected, atol=1e-4)


def test_quantised_loading_without_its_package(tiny_vlm: Path) -> None:
    pytest.importorskip("accelerate")
    with pytest.raises(UserError, match=r"cannot be loaded .*bitsandbytes"):
        load_vlm(str(tiny_vlm), device="cpu", quantization="8bit")


@functools.cache
def uneven_times() -> Any:
    """Frames at 0, 0.1, 0.2 and 3 s, though the average rate would put them a second apart."""
    clip = clip_of([noise(48, 64, seed=i) for i in range(4)])
    return dataclasses.replace(clip, times_s=np.array([0.0, 0.1, 0.2, 3.0]), frame_rate=1.0, n_frames=4)


def test_qwen3_is_told_when_its_frames_are_shown(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    # Middle of the first and the last frame of a step: (0 + 0.1) / 2 and (0.2 + 3) / 2.
    vlm = tiny_vlms("qwen3_vl")
    text = vlm.processor.tokenizer.decode(vlm.prefix(uneven_times()).input_ids[0])
    assert text.count("seconds>") == 2
    assert "<0.1 seconds>" in text
    assert "<1.6 seconds>" in text


def test_smolvlm_is_told_when_its_frames_are_shown(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    vlm = tiny_vlms("smolvlm")
    text = vlm.processor.tokenizer.decode(vlm.prefix(uneven_times()).input_ids[0])
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
    # Text goes on behind the larger side of a frame.
    assert prefix.next_position == start + max(prefix.grid.n_rows, prefix.grid.n_cols)


def test_gemma3_frames_are_blocks(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    prefix = tiny_vlms("gemma3").prefix(clip_of([noise(48, 64)] * 3))
    assert prefix.blocks is not None
    assert prefix.blocks[prefix.visual_positions].tolist() == [0] * 16 + [1] * 16 + [2] * 16
    assert int((prefix.blocks >= 0).sum()) == 48


def test_onevision_newline_has_no_place(tiny_vlms: Callable[[str], VideoVlm]) -> None:
    prefix = tiny_vlms("llava_onevision").prefix(clip_of([noise(48, 64)] * 2))
    assert len(prefix.slots) == len(prefix.visual_positions) + 1 == 2 * 9 + 1


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


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("shape", [(16, 700), (700, 16), (400, 400), (8, 8), (30, 200)])
def test_no_shape_gives_more_tokens_than_stated(
    family: str, shape: tuple[int, int], tiny_vlms: Callable[[str], VideoVlm]
) -> None:
    vlm = tiny_vlms(family)
    for n_frames in (2, 5):
        grid = vlm.prefix(clip_of([noise(*shape)] * n_frames)).grid
        assert grid.n_tokens <= vlm.max_visual_tokens(n_frames)
