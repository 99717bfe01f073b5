"""A model's chat prompt: the text that its template renders for a video and a question, and the tokens after the video.

The prompt is what the checkpoint's own chat template renders for one user turn with the video first and the question
after it, up to where the model's answer begins. A processor then replaces the template's placeholder by many tokens;
the processor decides how many, and what comes between them.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Int64
from jinja2 import TemplateError
from torch import Tensor

from collect.errors import UserError
from collect.printable import printable


class Chat:
    """Prompts of one checkpoint.

    Args:
        name: the model's name, for messages.
        processor: its transformers processor.
        placeholder: what the template writes for a video, or for each frame.
        visual_token_id: id of the token that the processor writes for each visual feature.
        closing_text: what the processor writes between the last of these and the text that follows the placeholder.
        kind: what a clip is in the chat: one video, or one image per frame.

    Raises:
        UserError: the template does not write exactly one placeholder for a video.
    """

    def __init__(
        self,
        name: str,
        processor: Any,
        *,
        placeholder: str,
        visual_token_id: int,
        closing_text: str = "",
        kind: Literal["video", "image"] = "video",
    ) -> None:
        self._name = name
        self._processor = processor
        self._placeholder = placeholder
        self._visual_token_id = visual_token_id
        self._closing_text = closing_text
        self._kind = kind
        self.text("")

    def text(self, question: str, n_placeholders: int = 1) -> str:
        """Render the whole prompt, with the template's own placeholders.

        Args:
            question: the text after the video.
            n_placeholders: 1 for a video, or the number of frames that are images.

        Raises:
            UserError: the question itself holds a placeholder for a video, or the template writes none.
        """
        n = n_placeholders
        media = [{"type": self._kind} for _ in range(n)]
        turn = {"role": "user", "content": [*media, {"type": "text", "text": question}]}
        try:
            text: str = self._processor.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise UserError(
                f"The chat template of {self._name} (chat_template.jinja or the tokenizer's) cannot be rendered "
                f"({printable(error, 160)}): put the model's own back, or take another checkpoint."
            ) from None
        if (found := text.count(self._placeholder)) != n:
            raise UserError(
                f"The chat template of {self._name} gives {found} video placeholders with the question "
                f"{question!r} where {n} {'is' if n == 1 else 'are'} needed: take a checkpoint whose template writes "
                "one, and no placeholder in the question."
            )
        return text

    def suffix(self, question: str) -> Int64[Tensor, " n_suffix"]:
        """Token ids after the last visual feature for one user text.

        Raises:
            UserError: the question itself holds a placeholder for a video.
        """
        tokenizer = self._processor.tokenizer
        after = self.text(question).rpartition(self._placeholder)[2]
        # The token before it is tokenised too, because some tokenizers treat the start of a text differently.
        anchor: str = tokenizer.convert_ids_to_tokens(self._visual_token_id)
        ids = torch.tensor(tokenizer(anchor + self._closing_text + after, add_special_tokens=False)["input_ids"])
        places = (ids == self._visual_token_id).nonzero()[:, 0].tolist()
        if len(places) != 1:
            raise UserError(
                f"The question {question!r} holds {len(places) - 1} times the text {anchor!r}, which {self._name} "
                "keeps for what it sees: leave it out."
            )
        return ids[places[0] + 1 :]

    def tokenizer_arguments(self, text: str) -> dict[str, Any]:
        """Tokenizer arguments: as in transformers, a template that writes the first token must not get a second."""
        bos = self._processor.tokenizer.bos_token
        return {"add_special_tokens": not (bos is not None and text.startswith(bos))}

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
