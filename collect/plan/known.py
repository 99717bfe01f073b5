"""Sizes of well-known video VLMs, so that `video-sae plan` needs neither a network nor their folders.

Each entry holds those keys of the model's published config.json that decide its cost, under the same names (and, where
frames keep their own size, the bounds of its processor). A folder with a config.json is preferred to this table.
"""

from collections.abc import Mapping
from typing import Any


def _text(d: int, layers: int, mlp: int, heads: int, kv: int, vocabulary: int, head_dim: int | None = None) -> Any:
    return {
        "hidden_size": d,
        "num_hidden_layers": layers,
        "intermediate_size": mlp,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head_dim or d // heads,
        "vocab_size": vocabulary,
    }


def _vision(width: int, layers: int, mlp: int, image: int | None, patch: int) -> Any:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "intermediate_size": mlp, "patch_size": patch}
    return sizes if image is None else sizes | {"image_size": image}


_SO400M = _vision(1152, 27, 4304, 384, 14)
_QWEN2 = {
    "0.5B": _text(896, 24, 4864, 14, 2, 151936),
    "1.5B": _text(1536, 28, 8960, 12, 2, 151936),
    "7B": _text(3584, 28, 18944, 28, 4, 152064),
}


def _perception_lm(text: Any, architecture: str) -> Any:
    vision = {"architecture": architecture}
    return {
        "model_type": "perception_lm",
        "text_config": text,
        "vision_config": vision,
        "projector_pooling_ratio": 2,
    }


def _qwen25(text: Any) -> Any:
    vision = _vision(1280, 32, 3420, None, 14)
    processor = {"min_pixels": 3136, "max_pixels": 12845056}
    return {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": vision, "processor": processor}


def _qwen3(text: Any, vision: Any) -> Any:
    return {"model_type": "qwen3_vl", "text_config": text, "vision_config": vision}


def _internvl(text: Any) -> Any:
    vision = _vision(1024, 24, 4096, 448, 14)
    return {"model_type": "internvl", "text_config": text, "vision_config": vision, "downsample_ratio": 0.5}


KNOWN_MODELS: Mapping[str, Mapping[str, Any]] = {
    "facebook/Perception-LM-1B": _perception_lm(_text(2048, 16, 8192, 32, 8, 128256), "vit_pe_lang_large_patch14_448"),
    "facebook/Perception-LM-3B": _perception_lm(_text(3072, 28, 8192, 24, 8, 128256), "vit_pe_lang_large_patch14_448"),
    "facebook/Perception-LM-8B": _perception_lm(
        _text(4096, 32, 14336, 32, 8, 128256), "vit_pe_lang_gigantic_patch14_448"
    ),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": {
        "model_type": "llava_onevision",
        "text_config": _QWEN2["0.5B"],
        "vision_config": _SO400M,
    },
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": {
        "model_type": "llava_onevision",
        "text_config": _QWEN2["7B"],
        "vision_config": _SO400M,
    },
    "llava-hf/LLaVA-NeXT-Video-7B-hf": {
        "model_type": "llava_next_video",
        "text_config": _text(4096, 32, 11008, 32, 32, 32064),
        "vision_config": _vision(1024, 24, 4096, 336, 14),
    },
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen25(_text(2048, 36, 11008, 16, 2, 151936)),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen25(_QWEN2["7B"]),
    "Qwen/Qwen2.5-VL-72B-Instruct": _qwen25(_text(8192, 80, 29568, 64, 8, 152064)),
    "Qwen/Qwen3-VL-2B-Instruct": _qwen3(_text(2048, 28, 6144, 16, 8, 151936, 128), _vision(1024, 24, 4096, None, 16)),
    "Qwen/Qwen3-VL-4B-Instruct": _qwen3(_text(2560, 36, 9728, 32, 8, 151936, 128), _vision(1024, 24, 4096, None, 16)),
    "Qwen/Qwen3-VL-8B-Instruct": _qwen3(_text(4096, 36, 12288, 32, 8, 151936, 128), _vision(1152, 27, 4304, None, 16)),
    "OpenGVLab/InternVL3-1B-hf": _internvl(_QWEN2["0.5B"]),
    "OpenGVLab/InternVL3-2B-hf": _internvl(_QWEN2["1.5B"]),
    "OpenGVLab/InternVL3-8B-hf": _internvl(_QWEN2["7B"]),
    "HuggingFaceTB/SmolVLM2-500M-Video-Instruct": {
        "model_type": "smolvlm",
        "text_config": _text(960, 32, 2560, 15, 5, 49280),
        "vision_config": _vision(768, 12, 3072, 512, 16),
        "scale_factor": 4,
    },
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": {
        "model_type": "smolvlm",
        "text_config": _text(2048, 24, 8192, 32, 32, 49280),
        "vision_config": _SO400M,
        "scale_factor": 3,
    },
    "google/gemma-3-4b-it": {
        "model_type": "gemma3",
        "text_config": _text(2560, 34, 10240, 8, 4, 262208, 256),
        "vision_config": _vision(1152, 27, 4304, 896, 14),
        "mm_tokens_per_image": 256,
    },
    "google/gemma-3-12b-it": {
        "model_type": "gemma3",
        "text_config": _text(3840, 48, 15360, 16, 8, 262208, 256),
        "vision_config": _vision(1152, 27, 4304, 896, 14),
        "mm_tokens_per_image": 256,
    },
}
