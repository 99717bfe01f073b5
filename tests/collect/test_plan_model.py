import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.models.qwen2_vl import video_processing_qwen2_vl as qwen2
from transformers.models.qwen3_vl import video_processing_qwen3_vl as qwen3

from collect.errors import UserError
from collect.plan_files import read_sizes
from collect.plan_known import KNOWN_MODELS
from collect.plan_model import Layout, sizes_of

sides = st.integers(64, 2200)


def save(folder: Path, config: dict[str, Any], processor: dict[str, Any] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if processor is not None:
        (folder / "video_preprocessor_config.json").write_text(json.dumps(processor))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "n_frames", "tokens"),
    [
        ("facebook/Perception-LM-1B", 16, 16 * 256),  # 448 / 14 / 2 = 16 a side
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 8, 8 * 196),  # 27 patches, halved upwards to 14 a side
        ("llava-hf/LLaVA-NeXT-Video-7B-hf", 8, 8 * 144),  # 24 patches, halved
        ("OpenGVLab/InternVL3-1B-hf", 8, 8 * 256),
        ("HuggingFaceTB/SmolVLM2-500M-Video-Instruct", 8, 8 * 64),  # 512 / 16 / 4
        ("HuggingFaceTB/SmolVLM2-2.2B-Instruct", 8, 8 * 81),  # 27 / 3
        ("google/gemma-3-4b-it", 8, 8 * 256),
    ],
)
def test_families_of_fixed_size(name: str, n_frames: int, tokens: int) -> None:
    n_steps, patches, per_step = read_sizes(name).layout.counts(n_frames, 720, 1280)
    assert n_steps * per_step == tokens
    assert patches >= per_step


@given(height=sides, width=sides)
def test_qwen25_sizes_are_those_of_its_processor(height: int, width: int) -> None:
    layout = read_sizes("Qwen/Qwen2.5-VL-3B-Instruct").layout
    rows, cols = qwen2.smart_resize(height, width, factor=28, min_pixels=3136, max_pixels=12845056)
    assert layout.counts(7, height, width) == (4, rows * cols // 14**2, rows * cols // 28**2)


@given(height=sides, width=sides, n_frames=st.integers(2, 400))
def test_qwen3_sizes_are_those_of_its_processor(height: int, width: int, n_frames: int) -> None:
    layout = read_sizes("Qwen/Qwen3-VL-2B-Instruct").layout
    rows, cols = qwen3.smart_resize(n_frames, height, width, factor=32, min_pixels=4096, max_pixels=25165824)
    n_steps = -(-n_frames // 2)  # an odd clip repeats its last frame
    assert layout.counts(n_frames, height, width) == (n_steps, rows * cols // 16**2, rows * cols // 32**2)


@pytest.mark.parametrize(
    ("name", "processor", "patch"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", Qwen2VLVideoProcessor, 14),
        ("Qwen/Qwen3-VL-2B-Instruct", Qwen3VLVideoProcessor, 16),
    ],
)
def test_a_processor_gives_as_many_patches(name: str, processor: Any, patch: int, tmp_path: Path) -> None:
    made = processor(size={"shortest_edge": patch**2 * 16, "longest_edge": patch**2 * 400}, patch_size=patch)
    frames = np.zeros((6, 100, 180, 3), dtype=np.uint8)
    grid = made(videos=[frames], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0]
    folder = save(tmp_path, dict(KNOWN_MODELS[name]), json.loads(made.to_json_string()))
    n_steps, patches, per_step = read_sizes(folder).layout.counts(6, 100, 180)
    assert (n_steps, patches, 4 * per_step) == (int(grid[0]), int(grid[1] * grid[2]), int(grid[1] * grid[2]))


def test_weights_of_a_known_model() -> None:
    # Llama 3.2 1B has 1,235,814,400 weights, of which 2 * 16 + 1 norms of 2,048 are no matrices. The tower has 23
    # layers of 4 * 1024^2 + 2 * 1024 * 4096 and the projector 1024 * 2048 + 2048^2.
    sizes = read_sizes("facebook/Perception-LM-1B")
    tower, projector = 23 * (4 * 1024**2 + 2 * 1024 * 4096), 1024 * 2048 + 2048**2
    assert sizes.parameters - tower - projector == 1_235_814_400 - 33 * 2048


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_every_known_model_can_be_reckoned(name: str) -> None:
    sizes = read_sizes(name)
    billions = {"0.5b": 0.5, "500M": 0.4, "1B": 0.7, "2B": 1.5, "2.2B": 1.8, "3B": 3, "4": 3.5, "7": 6.5, "8B": 7}
    least = next((size for text, size in reversed(billions.items()) if text in name.split("/")[1]), 0.4)
    assert sizes.parameters > least * 1e9
    assert sizes.layout.counts(4, 720, 1280)[2] > 0


def test_a_folder_of_a_real_model(tiny_vlm: Path) -> None:
    sizes = read_sizes(str(tiny_vlm))
    assert (sizes.family, sizes.decoder.d_model) == ("perception_lm", 48)
    assert sizes.layout.counts(8, 48, 64) == (8, 64, 16)  # 32 / 4 = 8 a side, pooled to 4


def test_defaults_of_a_family_fill_in_what_its_configuration_leaves_out() -> None:
    config = dict(KNOWN_MODELS["google/gemma-3-4b-it"])
    config["text_config"] = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "num_hidden_layers": 34,
        "intermediate_size": 10240,
    }
    assert sizes_of("x", config, {}).decoder == read_sizes("google/gemma-3-4b-it").decoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "family 'gpt2', whose cost is not known: use one of gemma3"),
        ({"text_config": {"hidden_size": 64, "num_experts": 8}}, "mixes experts"),
        ({"text_config": {"hidden_size": 64}}, "lacks text_config.num_attention_heads"),
        ({"vision_config": {"image_size": 448}}, "lacks vision_config.patch_size"),
    ],
)
def test_what_cannot_be_reckoned_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sizes_of("x", {**KNOWN_MODELS["OpenGVLab/InternVL3-1B-hf"], **changes}, {})


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json is missing or is no model configuration"):
        read_sizes(str(tmp_path))


def test_a_model_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"nobody/nothing is no folder, .*Perception-LM-1B.*no connection"):
        read_sizes("nobody/nothing")


def test_fixed_squares_ignore_the_size_of_a_video() -> None:
    layout = Layout(patch_px=14, image_px=448, merge=0, per_frame=256)
    assert layout.counts(4, 100, 900) == layout.counts(4, 1080, 1920) == (4, 1024, 256)
