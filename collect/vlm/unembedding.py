"""The unembedding of a checkpoint, read from its files without loading the model.

What a direction of the residual stream writes into the vocabulary is its product with the final norm's weights and the
unembedding. Dividing by the residual's own norm, which the final norm does as well, changes no ranks and is left out.

Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from collect.artefact.json_fields import Fields
from collect.artefact.json_file import read_json
from collect.errors import UserError
from collect.printable import printable
from collect.vlm.files import SUFFIXES, usable

_UNEMBEDDINGS = ("lm_head.weight", "embed_tokens.weight")
"""Ends of the tensor's name; a model without the first uses its embedding."""
_NORM = "norm.weight"
_NOT_TEXT = ("vision", "visual", "layers.", "projector", "connector", "layernorm")
"""Parts of the names of tensors that are not the text model's own."""
CHUNK_ROWS = 16_384
"""Rows of the unembedding that are multiplied at once."""


@dataclass(frozen=True, kw_only=True)
class Unembedding:
    """What turns the residual stream after the last layer into logits."""

    weight: Float[Tensor, "vocabulary d_model"]
    norm: Float[Tensor, " d_model"]
    """What the final norm multiplies each coordinate by."""
    decode: Callable[[int], str]
    """What a token stands for."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.weight.shape[1]

    def logits(self, directions: Float[Tensor, "direction d_model"]) -> Float[Tensor, "direction vocabulary"]:
        """Logits that directions of norm 1 write, less the mean over the vocabulary, which changes no answer."""
        unit = directions.float() / directions.float().norm(dim=1, keepdim=True).clamp(min=1e-12)
        scaled = unit * self.norm
        parts = [scaled @ part.float().T for part in self.weight.split(CHUNK_ROWS)]
        logits = torch.cat(parts, dim=1)
        return logits - logits.mean(dim=1, keepdim=True)

    def texts(self, tokens: Int[Tensor, " token"] | Sequence[int]) -> list[str]:
        """What tokens stand for."""
        listed = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        return [self.decode(token) for token in listed]


def read_unembedding(model: str) -> Unembedding:
    """Read the unembedding of a checkpoint that is on this machine; nothing is fetched.

    Args:
        model: a folder, or the name of a model on the hub that has been fetched before.

    Raises:
        UserError: it is not on this machine, or its files do not hold an unembedding.
    """
    folder = _local_folder(model)
    remedy = "check that its folder is complete, or fetch it again"
    model_type = Fields(read_json(folder / "config.json", remedy), printable(folder, 4096), remedy).text("model_type")
    found = _tensors(model, folder)
    weight = next((tensor for end in _UNEMBEDDINGS for name, tensor in found.items() if name.endswith(end)), None)
    norm = next((tensor for name, tensor in found.items() if name.endswith(_NORM)), None)
    if weight is None or norm is None or weight.ndim != 2 or norm.shape != weight.shape[1:]:
        raise UserError(f"{printable(model)} has no unembedding and final norm by the usual names.")
    # Gemma's norms multiply by 1 + weight.
    return Unembedding(
        weight=weight, norm=norm.float() + model_type.startswith("gemma"), decode=_decoder(model, folder)
    )


def _decoder(model: str, folder: Path) -> Callable[[int], str]:
    """What turns a token into text. transformers takes seconds to import, which the usual tokenizers do not need."""
    with usable(model):
        if (folder / "tokenizer.json").is_file():
            from tokenizers import Tokenizer

            fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
            return lambda token: str(fast.decode([token], skip_special_tokens=False))
        from transformers import AutoTokenizer

        slow = cast("Any", AutoTokenizer).from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        return lambda token: str(slow.decode([token]))


def _tensors(model: str, folder: Path) -> dict[str, Tensor]:
    """The tensors that may be wanted, the text model's final norm and unembedding among them."""
    wanted: dict[str, Tensor] = {}
    try:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    if any(part in name for part in _NOT_TEXT) or not name.endswith((*_UNEMBEDDINGS, _NORM)):
                        continue
                    wanted[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{printable(model)} cannot be read ({printable(error, 200)}): fetch it again.") from None
    return wanted


def _local_folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        patterns = [f"*{suffix}" for suffix in sorted(SUFFIXES)]
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        raise UserError(f"The model {printable(model)} is not on this machine.") from None
