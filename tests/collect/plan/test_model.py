import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.models.qwen2_vl import video_processing_qwen2_vl as qwen2
from transformers.models.qwen3_vl import video_processing_qwen3_vl as qwen3

from collect.errors import UserError
from collect.plan.families import sizes_of
from collect.plan.files import read_sizes
from collect.plan.known import KNOWN_MODELS
from collect.plan.model import Layout

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
def test_every_known_model_can_be_estimated(name: str) -> None:
    sizes = read_sizes(name)
    billions = {"0.5b": 0.5, "500M": 0.4, "1B": 0.7, "2B": 1.5, "2.2B": 1.8, "3B": 3, "4": 3.5, "7": 6.5, "8B": 7}
    least = next((size for text, size in reversed(billions.items()) if text in name.split("/")[1]), 0.4)
    assert sizes.parameters > least * 1e9
    assert sizes.layout.counts(4, 720, 1280)[2] > 0


def test_a_folder_of_a_real_model(tiny_vlm: Path) -> None:
    sizes = read_sizes(str(tiny_vlm))
    assert (sizes.family, sizes.decoder.d_model) == ("perception_lm", 48)
    assert sizes.layout.counts(8, 48, 64) == (8, 64, 16)  # 32 / 4 = 8 a side, pooled to 4


def test_defaults_of_a_family_fill_in_what_its_configuration_leaves_out(tmp_path: Path) -> None:
    config = dict(KNOWN_MODELS["google/gemma-3-4b-it"])
    config["text_config"] = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "num_hidden_layers": 34,
        "intermediate_size": 10240,
    }
    assert read_sizes(save(tmp_path, config)).decoder == read_sizes("google/gemma-3-4b-it").decoder


FULL: dict[str, str] = {
    "facebook/Perception-LM-1B": "llama",
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": "qwen2",
    "llava-hf/LLaVA-NeXT-Video-7B-hf": "llama",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2_5_vl_text",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl_text",
    "OpenGVLab/InternVL3-1B-hf": "qwen2",
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": "llama",
    "google/gemma-3-4b-it": "gemma3_text",
}
"""A model of each family, and the type of its text model."""
TOWERS = {
    "perception_lm": "timm_wrapper",
    "llava_next_video": "clip_vision_model",
    "qwen2_5_vl": "qwen2_5_vl_vision",
    "qwen3_vl": "qwen3_vl_vision",
    "internvl": "internvl_vision",
    "smolvlm": "smolvlm_vision",
}
"""Type of a family's vision tower; that of the others is SigLIP's."""


def published(name: str) -> dict[str, Any]:
    """The sizes of a known model as its published config.json has them."""
    config = {key: value for key, value in KNOWN_MODELS[name].items() if key != "processor"}
    family = config["model_type"]
    vision = {"model_type": TOWERS.get(family, "siglip_vision_model"), **config["vision_config"]}
    if family == "llava_next_video":
        vision["num_attention_heads"] = 16
    if family.startswith("qwen"):
        vision["depth"] = vision.pop("num_hidden_layers")
    return {**config, "vision_config": vision, "text_config": {"model_type": FULL[name], **config["text_config"]}}


def first(size: Any) -> int:
    return size[0] if isinstance(size, (list, tuple)) else size


@pytest.mark.parametrize("name", FULL)
def test_a_published_configuration_is_the_known_model(name: str, tmp_path: Path) -> None:
    known, read = read_sizes(name), read_sizes(save(tmp_path, published(name)))
    assert (known.decoder, known.tower) == (read.decoder, read.tower)
    assert (known.layout.patch_px, known.layout.image_px) == (read.layout.patch_px, read.layout.image_px)
    assert (known.layout.per_frame, known.layout.merge) == (read.layout.per_frame, read.layout.merge)


@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_keys_left_out_are_those_of_transformers(data: st.DataObject, tmp_path: Path) -> None:
    config = published(data.draw(st.sampled_from(sorted(FULL))))
    family = config["model_type"]
    # The type of a part says whose defaults are meant, and heads have to divide the width.
    fixed = {"text_config": {"model_type", "hidden_size"}}
    fixed["vision_config"] = {"model_type", "architecture", "num_attention_heads"}
    for part in fixed:
        names = sorted(set(config[part]) - fixed[part])
        for name in data.draw(st.sets(st.sampled_from(names))) if names else ():
            del config[part][name]
    if family == "qwen2_5_vl" and data.draw(st.booleans()):  # as its first release was published
        text = config.pop("text_config")
        config |= {name: value for name, value in text.items() if name != "model_type"}
    scales = ["projector_pooling_ratio", "downsample_ratio", "scale_factor", "mm_tokens_per_image"]
    for name in data.draw(st.sets(st.sampled_from(scales))):
        config.pop(name, None)
    folder = save(tmp_path, config)
    sizes, theirs = read_sizes(folder), AutoConfig.from_pretrained(folder)
    text, vision = theirs.get_text_config(), theirs.vision_config
    assert dataclasses.asdict(sizes.decoder) == {
        "n_layers": text.num_hidden_layers,
        "d_model": text.hidden_size,
        "d_mlp": text.intermediate_size,
        "n_heads": text.num_attention_heads,
        "n_kv_heads": text.num_key_value_heads or text.num_attention_heads,
        "head_dim": getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        "vocabulary": text.vocab_size,
    }
    if family == "perception_lm":
        assert sizes.layout.per_frame == (448 // 14 // theirs.projector_pooling_ratio) ** 2
        return
    assert sizes.layout.patch_px == first(vision.patch_size)
    assert (sizes.tower.width, sizes.tower.d_mlp) == (vision.hidden_size, vision.intermediate_size)
    if family.startswith("qwen"):
        assert (sizes.layout.merge, sizes.layout.temporal) == (vision.spatial_merge_size, vision.temporal_patch_size)
        assert sizes.tower.n_layers == vision.depth
        return
    assert sizes.tower.n_layers == vision.num_hidden_layers
    side = first(vision.image_size) // first(vision.patch_size)
    per_frame = {
        "llava_onevision": lambda: math.ceil(side / 2) ** 2,
        "llava_next_video": lambda: math.ceil(side / theirs.spatial_pool_stride) ** 2,
        "internvl": lambda: math.ceil(side * theirs.downsample_ratio) ** 2,
        "smolvlm": lambda: math.ceil(side / theirs.scale_factor) ** 2,
        "gemma3": lambda: theirs.mm_tokens_per_image,
    }
    assert (sizes.layout.image_px, sizes.layout.per_frame) == (first(vision.image_size), per_frame[family]())


def test_early_configurations_of_qwen_are_flat_and_name_only_what_differs(tmp_path: Path) -> None:
    known = read_sizes("Qwen/Qwen2.5-VL-7B-Instruct")
    text = KNOWN_MODELS["Qwen/Qwen2.5-VL-7B-Instruct"]["text_config"]
    vision = {"hidden_size": 1280, "in_chans": 3, "spatial_patch_size": 14, "tokens_per_second": 2}
    sizes = read_sizes(save(tmp_path, {"model_type": "qwen2_5_vl", **text, "vision_config": vision}))
    assert (sizes.decoder, sizes.tower) == (known.decoder, known.tower)


def test_sizes_of_two_sides(tmp_path: Path) -> None:
    config = published("OpenGVLab/InternVL3-1B-hf")
    config["vision_config"] |= {"image_size": [448, 448], "patch_size": [14, 14]}
    assert read_sizes(save(tmp_path, config)).layout == read_sizes("OpenGVLab/InternVL3-1B-hf").layout


def test_a_tower_that_is_named_may_state_its_sizes_too(tmp_path: Path) -> None:
    config = published("facebook/Perception-LM-1B")
    config["vision_config"]["model_args"] = {"embed_dim": 512, "depth": 11, "img_size": [224, 224], "global_pool": ""}
    sizes = read_sizes(save(tmp_path, config))
    # The tower's hidden layers are four times as wide as the tower; 224 / 14 = 16 patches a side, pooled to 8.
    assert (sizes.tower.n_layers, sizes.tower.width, sizes.tower.d_mlp, sizes.layout.per_frame) == (11, 512, 2048, 64)
    config["vision_config"] |= {"architecture": "vit_base_patch16_224"}
    with pytest.raises(UserError, match=r"has the vision tower 'vit_base_patch16_224', whose sizes are not known"):
        read_sizes(save(tmp_path, config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "internvl_chat"},
            r"'internvl_chat' \(which runs code of its own; .* end in -hf .*\), whose cost",
        ),
        ({"model_type": "video_llava"}, r"family 'video_llava', whose cost is not known: use one of gemma3, internvl,"),
        ({"model_type": None}, r"family None, whose cost"),
        ({"model_type": ["\x1b"]}, r"family \['"),
        ({"text_config": {"model_type": "no_such_model"}}, r"is none of a internvl model"),
        ({"text_config": {"model_type": "qwen2", "hidden_size": "wide"}}, r"is none of a internvl model|is no size"),
        ({"text_config": {"model_type": "qwen2", "hidden_size": -5}}, r"hidden_size = -5, which is no size|is none of"),
        ({"text_config": {"model_type": "qwen2", "num_attention_heads": 0}}, r"is no size|is none of"),
        ({"vision_config": {"image_size": []}}, r"image_size|is none of"),
        ({"vision_config": 7}, r"is none of|lacks"),
        ({"downsample_ratio": 0}, r"downsample_ratio = 0, which is not above 0|is none of"),
        ({"downsample_ratio": float("nan")}, r"downsample_ratio = nan, which is not above 0|is none of"),
    ],
)
def test_a_configuration_that_is_none_is_refused_in_a_sentence(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_sizes(save(tmp_path, {**published("OpenGVLab/InternVL3-1B-hf"), **changes}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "family 'gpt2', whose cost is not known: use one of gemma3"),
        ({"text_config": {"hidden_size": 64, "num_experts": 8}}, "mixes experts"),
        ({"text_config": {"hidden_size": 64}}, "lacks text_config.num_attention_heads"),
        ({"vision_config": {"image_size": 448}}, "lacks vision_config.patch_size"),
    ],
)
def test_what_cannot_be_estimated_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sizes_of("x", {**KNOWN_MODELS["OpenGVLab/InternVL3-1B-hf"], **changes}, {})


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json does not exist: give a folder that holds"):
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
