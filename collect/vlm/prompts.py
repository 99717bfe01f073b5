"""Prompts of a VLM: a clip through its own processor, cut after the last visual token, and the text that follows."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from collect.errors import UserError
from collect.video.decode import Clip
from collect.vlm.attention import frame_blocks
from collect.vlm.chat import Chat
from collect.vlm.clip_metadata import blank_clip
from collect.vlm.family import VlmFamily
from collect.vlm.prompt import Prefix


class Prompts:
    """Prefixes and suffixes of one loaded model. All of it runs on the CPU, in any thread.

    Raises:
        UserError: the chat template does not write exactly one placeholder for a video.
    """

    def __init__(self, family: VlmFamily) -> None:
        self._family = family
        self._chat = Chat(
            family.name,
            family.processor,
            placeholder=family.placeholder,
            visual_token_id=family.visual_token_id,
            closing_text=family.closing_text,
            kind="image" if family.frames_are_images else "video",
        )
        self._is_chat_checked = False

    def processed(self, clip: Clip, question: str = "") -> dict[str, Any]:
        """All inputs of the model for a clip and a question, as its own processor makes them."""
        text = self._chat.text(question, len(clip.frames) if self._family.frames_are_images else 1)
        inputs = self._family.processor(
            text=[text],
            **self._family.processor_arguments(clip),
            return_tensors="pt",
            **self._chat.tokenizer_arguments(text),
        )
        return dict(inputs.items())

    def prefix(self, clip: Clip) -> Prefix:
        """Preprocess a clip and tokenise the prompt up to its last visual token.

        Raises:
            UserError: the checkpoint's processor does not lay out tokens as its family does.
        """
        family = self._family
        inputs = self.processed(clip)
        ids: Tensor = inputs["input_ids"][0]
        is_visual = ids == family.visual_token_id
        places = is_visual.nonzero()[:, 0]
        n_prefix = int(places[-1]) + 1 if len(places) else 0
        pixels = {name: inputs[name] for name in family.vision_inputs}
        grid, vision_grid = family.grids(pixels, clip)
        if len(places) != grid.n_tokens + family.n_newlines:
            raise UserError(
                f"The processor of {family.name} writes {len(places)} visual tokens where {family.model_type} has "
                f"{grid.n_tokens + family.n_newlines}: this checkpoint is not supported; use another of the family."
            )
        # The first token after the video shows where the text continues.
        positions = family.position_ids(_cut(inputs, n_prefix + 1))
        return Prefix(
            input_ids=ids[None, :n_prefix],
            pixels=pixels,
            visual_positions=places[: grid.n_tokens],
            newline_positions=places[grid.n_tokens :],
            grid=grid,
            vision_grid=vision_grid,
            position_ids=positions[:, :n_prefix],
            next_position=int(positions[0, n_prefix]) if positions.shape[1] > n_prefix else None,
            blocks=frame_blocks(is_visual[:n_prefix]) if family.has_bidirectional_frames else None,
        )

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the visual tokens for one user text, up to where the model's answer begins.

        Raises:
            UserError: prefix and suffix together are not what the processor makes of the whole chat (checked once).
        """
        suffix = self._chat.suffix(question)
        if not self._is_chat_checked:
            clip = blank_clip(n_frames=2)
            whole: Tensor = self.processed(clip, question)["input_ids"][0]
            if not torch.equal(whole, torch.cat([self.prefix(clip).input_ids[0], suffix])):
                raise UserError(
                    f"The processor of {self._family.name} tokenises a chat otherwise than prefix and suffix together: "
                    "this checkpoint's processor is not supported; use another checkpoint of the family."
                )
            self._is_chat_checked = True
        return suffix

    def answer_ids(self, letters: Sequence[str]) -> Int64[Tensor, " letter"]:
        """Token ids of the answers' letters.

        Raises:
            UserError: a letter is not one token of this model.
        """
        return self._chat.answer_ids(letters)


def _cut(inputs: dict[str, Any], n_tokens: int) -> dict[str, Any]:
    """A processor's inputs with those that have one number per token cut to the first `n_tokens`."""
    shape = inputs["input_ids"].shape
    return {name: x[:, :n_tokens] if isinstance(x, Tensor) and x.shape == shape else x for name, x in inputs.items()}
