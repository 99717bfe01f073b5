"""An independent check of ablations: plain forward hooks on the transformers model, one full pass per edit and order.

It shares nothing with `steer` and `ask` but the loaded model: the prompt comes from the model's own processor, the edit
is made in a hook, and the letters are read from the model's own logits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from collect.video.decode import Clip
from collect.vlm import VideoVlm


def visual_mask(vlm: VideoVlm, inputs: dict[str, Any]) -> Tensor:
    """Which tokens of the one prompt in `inputs` are visual."""
    return inputs["input_ids"][0] == vlm.family.visual_token_id


def run(vlm: VideoVlm, clip: Clip, text: str, layer: int, change: Tensor | None) -> tuple[Tensor, Tensor]:
    """Ask one question with the output of a decoder layer changed at the visual tokens.

    Args:
        vlm: only its model and its processor are used.
        clip: what is asked about.
        text: the question with its options.
        layer: the decoder layer.
        change: [visual token, d_model] to add; None for none.

    Returns:
        [vocabulary] logits at the last token, and the layer's unedited [visual token, d_model] output.
    """
    inputs = vlm.processed(clip, text)
    mask = visual_mask(vlm, inputs)
    seen: list[Tensor] = []

    def hook(_: Any, __: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        seen.append(hidden[0, mask].clone())
        if change is None:
            return None
        hidden = hidden.clone()
        hidden[0, mask] += change.to(hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = vlm.decoder.layers[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = vlm.model(**inputs).logits[0, -1].float()
    finally:
        handle.remove()
    return logits, seen[0]


def ablation(codes: Tensor, decoder: Tensor, latent: int) -> Tensor:
    """[token, d_model] that takes a latent out: its activations, negative, times its decoder direction."""
    return -codes[:, latent, None] * decoder[latent]


def ablated_letters(
    vlm: VideoVlm, clip: Clip, texts: Sequence[str], layer: int, codes: Tensor, decoder: Tensor, latent: int
) -> Tensor:
    """[text, letter] logits of A, B and C with one latent ablated."""
    letters = vlm.prompts.answer_ids(("A", "B", "C"))
    change = ablation(codes, decoder, latent)
    return torch.stack([run(vlm, clip, text, layer, change)[0][letters] for text in texts])
