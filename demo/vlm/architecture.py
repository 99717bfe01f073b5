"""The demo's PerceptionLM: sizes, vocabulary, tokenizer, chat template and processor, built without a network.

The folder that `save_untrained` writes loads through the same `AutoProcessor` and
`AutoModelForImageTextToText.from_pretrained(path)` as a hub model. Training is in `demo.vlm.train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from collect.artefact.folder import give_usual_mode
from collect.errors import UserError
from demo.vlm.vocabulary import WORDS

if TYPE_CHECKING:
    from transformers import PerceptionLMForConditionalGeneration, PerceptionLMProcessor

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<|image|>", "<|video|>", "<unk>")
IMAGE_TOKEN_ID, VIDEO_TOKEN_ID = 3, 4
WORD_STD = 1.5

CHAT_TEMPLATE = (
    "{{ '<bos> ' }}{% for message in messages %}{{ message['role'] + ' ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'video' %}{{ '<|video|> ' }}"
    "{% elif part['type'] == 'image' %}{{ '<|image|> ' }}"
    "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths of one PerceptionLM; `image_px // patch_px // pooling` is the side of the token grid."""

    image_px: int
    patch_px: int
    pooling: int
    vision_width: int
    vision_layers: int
    vision_heads: int
    width: int
    mlp_width: int
    layers: int
    heads: int
    kv_heads: int

    @property
    def grid(self) -> int:
        """Rows (and columns) of visual tokens per frame."""
        return self.image_px // self.patch_px // self.pooling


SIZES = {
    "tiny": Size(
        image_px=32,
        patch_px=4,
        pooling=2,
        vision_width=32,
        vision_layers=1,
        vision_heads=2,
        width=48,
        mlp_width=96,
        layers=3,
        heads=2,
        kv_heads=1,
    ),
    "demo": Size(
        image_px=112,
        patch_px=14,
        pooling=1,
        vision_width=128,
        vision_layers=3,
        vision_heads=4,
        width=128,
        mlp_width=384,
        layers=6,
        heads=4,
        kv_heads=4,
    ),
}


def build_processor(size: Size) -> PerceptionLMProcessor:
    """Tokenizer (one id per word), image and video processor, and chat template for one size."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PerceptionLMImageProcessor,
        PerceptionLMProcessor,
        PerceptionLMVideoProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: i for i, word in enumerate((*SPECIAL_TOKENS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<|image|>", "video_token": "<|video|>"},
    )
    side = {"height": size.image_px, "width": size.image_px}
    return PerceptionLMProcessor(
        video_processor=PerceptionLMVideoProcessor(size=side),
        image_processor=PerceptionLMImageProcessor(tile_size=size.image_px),
        tokenizer=fast,
        patch_size=size.patch_px,
        pooling_ratio=size.pooling,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(size: Size, seed: int) -> PerceptionLMForConditionalGeneration:
    """A randomly initialised fp32 model; `seed` fixes every weight."""
    import torch
    from transformers import PerceptionLMConfig, PerceptionLMForConditionalGeneration

    config = PerceptionLMConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": size.vision_width,
            "intermediate_size": 2 * size.vision_width,
            "num_hidden_layers": size.vision_layers,
            "num_attention_heads": size.vision_heads,
            "image_size": size.image_px,
            "patch_size": size.patch_px,
            "vision_use_head": False,
            "model_args": {"embed_dim": size.vision_width},
        },
        text_config={
            "model_type": "llama",
            "vocab_size": len(SPECIAL_TOKENS) + len(WORDS),
            "hidden_size": size.width,
            "intermediate_size": size.mlp_width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": size.width // size.heads,
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": False,
        },
        tie_word_embeddings=False,
        vision_use_cls_token=False,
        projector_pooling_ratio=size.pooling,
        image_token_id=IMAGE_TOKEN_ID,
        video_token_id=VIDEO_TOKEN_ID,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PerceptionLMForConditionalGeneration(config).eval()
        # At the usual 0.02, a word is lost next to residuals of norm 30 and more, which the visual tokens cause.
        torch.nn.init.normal_(cast("torch.Tensor", model.get_input_embeddings().weight), std=WORD_STD)
        return model


def save_untrained(folder: Path, *, size: Literal["tiny", "demo"] = "tiny", seed: int = 0) -> Path:
    """Write a loadable random model with its processor into `folder` and return the folder.

    Raises:
        UserError: `size` is not one of `SIZES`.
    """
    if size not in SIZES:
        raise UserError(f"There is no demo model size {size!r}; choose one of {', '.join(SIZES)}.")
    build_model(SIZES[size], seed).save_pretrained(folder)
    build_processor(SIZES[size]).save_pretrained(folder)
    give_usual_mode(*folder.glob("*.safetensors"))
    return folder
