"""Where a stage computes, and in which precision: what `auto` stands for."""

from typing import Literal

import torch

from collect.errors import UserError
from collect.process.ranks import Process

Dtype = Literal["auto", "float32", "bfloat16"]
_BFLOAT16_CAPABILITY = (8, 0)
"""The first GPUs that multiply bfloat16 matrices (Ampere); on older ones torch emulates it, slowly."""


def resolve_device(name: str) -> torch.device:
    """Turn a device's name into a device.

    Args:
        name: a device of torch; `auto` is a GPU if there is one. If torchrun has started several processes on this
            machine, each has its own GPU as long as there are enough, also for `cuda`, which names no particular one.

    Raises:
        UserError: there is no such device, or torchrun's variables do not fit together.
    """
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    process = Process.of_environment()
    if name in ("auto", "cuda") and torch.cuda.is_available() and process.world_size > 1:
        return torch.device("cuda", process.local_rank % torch.cuda.device_count())
    if name == "auto":
        return torch.device("cuda")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name} is not available here: choose cpu, or leave it out.") from None
    return device


def mark_work(device: torch.device) -> torch.cuda.Event | None:
    """What comes to pass once a GPU has done all that it was given so far; None on a CPU, where it is done already."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def resolve_dtype(name: Dtype, device: torch.device) -> Dtype:
    """The precision that a dtype's name stands for on a device: `auto` is bfloat16 on a GPU that computes in it.

    Args:
        name: auto, float32 or bfloat16.
        device: where the products are taken.

    Returns:
        float32 or bfloat16.
    """
    if name != "auto":
        return name
    is_able = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    return "bfloat16" if is_able else "float32"
