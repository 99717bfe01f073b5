"""Tensors in a safetensors file: atomic to write, and a sentence rather than a traceback when it cannot be read."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from collect.artefact import give_usual_mode, sync_folder
from collect.errors import UserError
from collect.printable import printable


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors so that a reader, also after a crash, sees the old file or the new one.

    Args:
        path: the file; its folder is made if there is none.
        tensors: tensors by name; each is written contiguously from the CPU.
        metadata: text to keep in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(content, temporary, metadata=dict(metadata) if metadata else None)
        give_usual_mode(temporary)  # safetensors lets nobody else read what it writes
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def load_tensors(
    path: Path, remedy: str, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a file and the text in its header.

    Args:
        path: the file.
        remedy: what the user can do if it cannot be read; completes the sentence behind a colon.
        device: where the tensors go.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: {remedy}.")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # also unknown types
        raise UserError(f"{path} is damaged ({printable(error, 200)}): {remedy}.") from None
