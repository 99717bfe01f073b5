"""Tiny random checkpoints that load like those from the hub: tokenizers byte by byte, chat templates, weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
SCALE = 0.3
"""Standard deviation of the weights: at the usual 0.02 the layers of so narrow a model would hardly do anything."""
WEAK = 0.2
"""Further factor for the attention of the vision tower, so that a patch is changed most by its own pixels."""


def chat_template(video: str, image: str = "<image>") -> str:
    """A chat template that writes `video` for a video, `image` for an image, and text as it is."""
    return (
        "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' }}{% for part in message['content'] %}"
        f"{{% if part['type'] == 'video' %}}{video}{{% elif part['type'] == 'image' %}}{image}"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def byte_tokenizer(*specials: str, **named: str) -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens of a family, some of them with a name."""
    added = (*SPECIALS, "<|im_start|>", "<|im_end|>", *specials)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate((*added, *alphabet))}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={f"special_{i}": token for i, token in enumerate(added[len(SPECIALS) :])} | named,
    )


def save_checkpoint(folder: Path, build: Callable[[], Any], processor: Any, *, seed: int = 0) -> Path:
    """Write a model with random weights and its processor.

    Args:
        folder: where to.
        build: makes the transformers model.
        processor: its transformers processor.
        seed: of the weights.

    Returns:
        The folder, for `load_vlm`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build().eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "bias" in name or "newline" in name:
                scale = SCALE * (WEAK if "vis" in name and "att" in name else 1.0)
                torch.nn.init.normal_(parameter, std=scale / max(1.0, (parameter[0].numel() / 32) ** 0.5))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
