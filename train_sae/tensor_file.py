"""Tensors in a safetensors file: written atomically, and an error in one sentence if it cannot be read.

The header's text holds a checksum of names, types, shapes, values and the other text. It is verified if it is there;
files of other programs have none.
"""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from collect.artefact.folder import give_usual_mode, sync_folder
from collect.artefact.seal import CHECKSUM, object_hash
from collect.errors import UserError
from collect.printable import printable

_UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError)
"""What safetensors and torch raise for damaged files, besides their own error: unknown types, sizes, memory."""


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors so that a reader, even after a crash, sees either the old file or the new one.

    Args:
        path: the file; its folder is made if there is none.
        tensors: tensors by name; each is written contiguously from the CPU.
        metadata: text to keep in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = dict(metadata or {})
    try:
        save_file(content, temporary, metadata={**text, CHECKSUM: _checksum(content, text)})
        _put_in_order(temporary)
        give_usual_mode(temporary)  # safetensors writes files that only the owner can read
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
        remedy: what the user can do if it cannot be read; completes the sentence after a colon.
        device: where the tensors go.

    Raises:
        UserError: there is no such file, it is damaged, or a value is not finite.
    """
    shown = printable(path, 4096)
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise UserError(f"{shown} {what}: {remedy}.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            text = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        bad = {name: n_bad for name, tensor in tensors.items() if (n_bad := _n_not_finite(tensor))}
    except _UNREADABLE as error:
        raise UserError(f"{shown} is damaged ({printable(error, 160)}): {remedy}.") from None
    if (checksum := text.pop(CHECKSUM, None)) is not None and checksum != _checksum(tensors, text):
        raise UserError(f"{shown} is damaged (its checksum does not match): {remedy}.")
    for name, n_bad in bad.items():
        raise UserError(f"{shown} has {n_bad} values in {printable(name, 60)} that are not finite: {remedy}.")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, text


def _put_in_order(path: Path) -> None:
    """Sort the text in a file's header, which safetensors writes in a different order each time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same header in another order is as long"
        file.seek(8)
        file.write(ordered.ljust(length))


def _n_not_finite(tensor: Tensor) -> int:
    if not tensor.is_floating_point():
        return 0
    wide = tensor if tensor.element_size() > 1 else tensor.float()  # torch does not compute with eight bits
    return int((~wide.isfinite()).sum())


def _checksum(tensors: Mapping[str, Tensor], text: Mapping[str, str]) -> str:
    """One hash of everything in a file."""
    sums = {
        name: [str(tensor.dtype), list(tensor.shape), google_crc32c.value(_bytes(tensor))]
        for name, tensor in tensors.items()
    }
    return object_hash({"tensors": sums, "text": dict(text)})


def _bytes(tensor: Tensor) -> Any:
    """The bytes of a tensor on the CPU, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
