"""Tiny random VLMs of every supported family, written to folders that load like checkpoints of the hub.

Tokenizers are byte by byte, with the family's special tokens. Frames become 4 to 16 tokens. Chat templates have the
shape of the real ones; nothing is fetched.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from collect.vlm.conformance import byte_tokenizer, chat_template, save_checkpoint
from demo.vlm.architecture import save_untrained

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def perception_lm(folder: Path, seed: int = 0) -> Path:
    """The demo's own tiny PerceptionLM."""
    return save_untrained(folder, size="tiny", seed=seed)


def llava_onevision(folder: Path, seed: int = 0) -> Path:
    """Frames of 44 px, 5 patches a side with 4 px unseen, pooled to 3."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    tok = byte_tokenizer("<image>", "<video>")
    size = {"height": 44, "width": 44}
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=[[44, 44]]),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tok,
        num_image_tokens=25,
        vision_feature_select_strategy="full",
        chat_template=chat_template("<video>\n"),
    )
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 44,
            "patch_size": 8,
            "vision_use_head": False,
            **VISION,
        },
        text_config={"model_type": "qwen2", "vocab_size": len(tok), **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        video_token_id=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[44, 44]],
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: LlavaOnevisionForConditionalGeneration(config), processor, seed=seed)


def llava_next_video(folder: Path, seed: int = 0) -> Path:
    """Frames of 32 px cropped from the middle, 8 patches a side pooled to 4."""
    from transformers import (
        LlavaNextImageProcessor,
        LlavaNextVideoConfig,
        LlavaNextVideoForConditionalGeneration,
        LlavaNextVideoProcessor,
        LlavaNextVideoVideoProcessor,
    )

    tok = byte_tokenizer("<image>", "<video>")
    crop = {"height": 32, "width": 32}
    processor = LlavaNextVideoProcessor(
        video_processor=LlavaNextVideoVideoProcessor(size={"shortest_edge": 32}, crop_size=crop),
        image_processor=LlavaNextImageProcessor(size={"shortest_edge": 32}, crop_size=crop),
        tokenizer=tok,
        patch_size=4,
        vision_feature_select_strategy="default",
        chat_template=chat_template("<video>\n"),
    )
    config = LlavaNextVideoConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 4, **VISION},
        text_config={"model_type": "llama", "vocab_size": len(tok), **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        video_token_id=tok.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[32, 32]],
        spatial_pool_mode="average",
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: LlavaNextVideoForConditionalGeneration(config), processor, seed=seed)


def _qwen_parts(family: str, patch_px: int) -> tuple[PreTrainedTokenizerFast, Any, dict[str, int]]:
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tok = byte_tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    shape = {"patch_size": patch_px, "merge_size": 2, "temporal_patch_size": 2, "cap_pixels_per_frame": False}
    area = (2 * patch_px) ** 2
    is_third = family == "qwen3_vl"
    # The third version's budget is for all frames together.
    size = {"shortest_edge": area * (16 if is_third else 4), "longest_edge": area * (80 if is_third else 20)}
    build, video = (
        (Qwen3VLProcessor, Qwen3VLVideoProcessor) if is_third else (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor)
    )
    processor = build(
        image_processor=Qwen2VLImageProcessor(patch_size=patch_px, merge_size=2),
        tokenizer=tok,
        video_processor=video(size=size, **shape),
        chat_template=chat_template("<|vision_start|><|video_pad|><|vision_end|>" if not is_third else "<|video_pad|>"),
    )
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>"} | {
        f"vision_{end}": f"<|vision_{end}|>" for end in ("start", "end")
    }
    return tok, processor, {f"{name}_token_id": tok.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen2_5_vl(folder: Path, seed: int = 0) -> Path:
    """Tokens of 16 px, windows of two by two tokens in the first layer of the tower."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tok, processor, ids = _qwen_parts("qwen2_5_vl", 8)
    config = Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        },
        text_config={
            "vocab_size": len(tok),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            **TEXT,
        },
        tie_word_embeddings=False,
        **ids,
    )
    return save_checkpoint(folder, lambda: Qwen2_5_VLForConditionalGeneration(config), processor, seed=seed)


def qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """Tokens of 16 px; the tower's first layer adds to decoder layers 0 (DeepStack), its second to layer 1."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tok, processor, ids = _qwen_parts("qwen3_vl", 8)
    config = Qwen3VLConfig(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "depth": 2,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 8,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={
            "vocab_size": len(tok),
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
            **TEXT,
        },
        tie_word_embeddings=False,
        **ids,
    )
    return save_checkpoint(folder, lambda: Qwen3VLForConditionalGeneration(config), processor, seed=seed)


def internvl(folder: Path, seed: int = 0) -> Path:
    """Frames of 32 px, 8 patches a side, shuffled to 4."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tok = byte_tokenizer(*named.values(), **named)
    size = {"height": 32, "width": 32}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=16,
        chat_template=chat_template("<video>\n", "<IMG_CONTEXT>\n"),
    )
    config = InternVLConfig(
        vision_config={"model_type": "internvl_vision", "image_size": [32, 32], "patch_size": [4, 4], **VISION},
        text_config={"model_type": "qwen2", "vocab_size": len(tok), **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=16,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: InternVLForConditionalGeneration(config), processor, seed=seed)


def smolvlm(folder: Path, seed: int = 0) -> Path:
    """Frames of 32 px, 8 patches a side, shuffled to 4."""
    from transformers import (
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "video_token": "<video>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tok = byte_tokenizer(*named.values(), **named)
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer=tok,
        video_processor=SmolVLMVideoProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, num_frames=64, fps=1
        ),
        image_seq_len=16,
        chat_template=chat_template("<video>"),
    )
    config = SmolVLMConfig(
        vision_config={"image_size": 32, "patch_size": 4, **VISION},
        text_config={"model_type": "llama", "vocab_size": len(tok), **TEXT},
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: SmolVLMForConditionalGeneration(config), processor, seed=seed)


def gemma3(folder: Path, seed: int = 0) -> Path:
    """Frames of 32 px, 8 patches a side, pooled to 4; two layers with a window of 24 tokens, then one without."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor

    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tok = byte_tokenizer(*named.values(), **named)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 32, "width": 32}),
        tokenizer=tok,
        image_seq_length=16,
        chat_template="<s>" + chat_template("<video>", "<start_of_image>"),
    )
    config = Gemma3Config(
        vision_config={
            "model_type": "siglip_vision_model",
            "image_size": 32,
            "patch_size": 4,
            "vision_use_head": False,
            **VISION,
        },
        text_config={
            "vocab_size": len(tok),
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 24,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            **TEXT,
        },
        mm_tokens_per_image=16,
        boi_token_index=tok.convert_tokens_to_ids("<start_of_image>"),
        eoi_token_index=tok.convert_tokens_to_ids("<end_of_image>"),
        image_token_index=tok.convert_tokens_to_ids("<image_soft_token>"),
        tie_word_embeddings=False,
    )
    return save_checkpoint(folder, lambda: Gemma3ForConditionalGeneration(config), processor, seed=seed)


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "perception_lm": perception_lm,
    "llava_onevision": llava_onevision,
    "llava_next_video": llava_next_video,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
}
