"""The script that people write to ablate latents: a hook on a layer, and a whole forward per latent and item."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ask.cases import Case
from ask.packing import Asked
from collect.video.decode import Clip
from collect.vlm import VideoVlm
from collect.vlm.check import own_inputs
from steer.screens.prefix import SparseChange


def hook_script(model: Asked, clip: Clip, case: Case, edits: Sequence[SparseChange]) -> Tensor:
    """What people write: a hook that changes a layer's output, and the model's own forward per latent and item."""
    vlm: VideoVlm = model.vlm
    layer: Any = vlm.decoder.layers[vlm.resumable(model.site).layer]  # type: ignore[index]
    prompts = [_batch([own_inputs(vlm, clip, text) for text in item.prompts]) for item in case.items]
    found: list[Tensor] = []
    for edit in edits:
        change = edit.dense(len(case.sequences.visual_positions))
        for inputs in prompts:

            def hook(_: Any, __: Any, output: Any, inputs: Any = inputs, change: Tensor = change) -> Any:
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                hidden[inputs["input_ids"] == vlm.family.visual_token_id] += change.repeat(len(hidden), 1)
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handle = layer.register_forward_hook(hook)
            try:
                with torch.no_grad():
                    logits = vlm.model(**inputs).logits
            finally:
                handle.remove()
            last = inputs["attention_mask"].sum(dim=1) - 1
            found.append(logits[torch.arange(len(last)), last][:, model.letters].float())
    return torch.stack(found).unflatten(0, (len(edits), len(case.items)))


def _batch(prompts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Prompts of one length in one batch."""
    assert len({each["input_ids"].shape for each in prompts}) == 1, "the orders of the options have different lengths"
    return {name: torch.cat([each[name] for each in prompts]) for name in prompts[0]}
