"""A model's chat prompt, split at the video: token ids before it, token ids after it for one question, answer letters.

The prompt is what the checkpoint's own chat template renders for one user turn with the video first and the question
after it, up to where the model's answer begins.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from collect.errors import UserError


class Chat:
    """Prompts of one checkpoint.

    Args:
        name: the model's name, for messages.
        processor: its transformers processor.
        placeholder_id: id of the token that stands for the video in the rendered template.

    Raises:
        UserError: the template does not write exactly one placeholder for a video.
    """

    def __init__(self, name: str, processor: Any, placeholder_id: int) -> None:
        self._name = name
        self._processor = processor
        self._placeholder_id = placeholder_id
        self.head: Int64[Tensor, " n_head"] = self._split("")[0]
        """Token ids before the video; they do not depend on the question."""

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the video for one user text.

        Raises:
            UserError: the question itself holds a placeholder for a video.
        """
        return self._split(question)[1]

    def whole(self, question: str, frames: Sequence[Any]) -> Int64[Tensor, " token"]:
        """Token ids of a whole prompt as the processor makes them from a clip's frames, for comparison."""
        text = self._render(question)
        inputs = self._processor(
            text=[text], videos=[frames], do_sample_frames=False, return_tensors="pt", **self._specials(text)
        )
        return inputs["input_ids"][0]

    def answer_ids(self, letters: Sequence[str]) -> Int64[Tensor, " letter"]:
        """Token ids of the answers' letters.

        Raises:
            UserError: a letter is not one token of this model.
        """
        tokenizer = self._processor.tokenizer
        ids = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in letters]
        for letter, tokens in zip(letters, ids, strict=True):
            if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
                raise UserError(f"{self._name} has no single token for the answer {letter!r}: choose other letters.")
        return torch.tensor([tokens[0] for tokens in ids])

    def _split(self, question: str) -> tuple[Int64[Tensor, " n_head"], Int64[Tensor, " n_suffix"]]:
        text = self._render(question)
        ids = torch.tensor(self._processor.tokenizer(text, **self._specials(text))["input_ids"])
        places = (ids == self._placeholder_id).nonzero()[:, 0].tolist()
        if len(places) != 1:
            raise UserError(
                f"The chat template of {self._name} gives {len(places)} video placeholders with the question "
                f"{question!r} where one is needed: take a checkpoint whose template writes one, and no placeholder in "
                "the question."
            )
        return ids[: places[0]], ids[places[0] + 1 :]

    def _render(self, question: str) -> str:
        turn = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}
        return self._processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)

    def _specials(self, text: str) -> dict[str, Any]:
        # As in transformers' own `apply_chat_template`: a template that writes the first token must not get a second.
        bos = self._processor.tokenizer.bos_token
        return {"add_special_tokens": not (bos is not None and text.startswith(bos))}
