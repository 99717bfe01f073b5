"""Checkpoints of a training: one safetensors file each, written atomically, the newest two kept.

A checkpoint holds the whole state (weights, Adam's moments, counters, normalisation, step, place in the data). The
step decides the learning rate and, with the seed, everything random, so a training that is killed and resumed from its
checkpoint ends with the weights, bit for bit, of one that was not. The place in the data follows from the step too; it
is kept so that a resumed run can tell that it would go on elsewhere.
"""

import json
from pathlib import Path

import torch

from collect.errors import UserError
from train_sae.normalize import Normalisation
from train_sae.plan import Cursor
from train_sae.state import TrainState
from train_sae.tensor_file import load_tensors, save_tensors

FOLDER_NAME = "checkpoints"
_KEPT = 2
_REMEDY = "delete it to go on from the checkpoint before it, or from the start"


def checkpoints(folder: Path, part: str = "") -> list[Path]:
    """The checkpoints of an SAE's folder, oldest first.

    Args:
        folder: the SAE's folder.
        part: of which process, where each has its own share of the latents.
    """
    return sorted((folder / FOLDER_NAME / part).glob("step-*.safetensors"))


def checkpoint_path(folder: Path, step: int, part: str = "") -> Path:
    """The checkpoint that is written after so many steps; arguments as for `checkpoints`."""
    return folder / FOLDER_NAME / part / f"step-{step:08d}.safetensors"


def step_of(path: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(path.stem.removeprefix("step-"))


def save_checkpoint(
    folder: Path, state: TrainState, normalisation: Normalisation, cursor: Cursor, part: str = ""
) -> Path:
    """Write the state after its last step, then remove all but the newest two checkpoints.

    Args:
        folder: the SAE's folder.
        state: what to write.
        normalisation: what the trainer does to its input.
        cursor: where in the data the next step begins.
        part: which process's share of the latents the state is; see `checkpoints`.
    """
    path = checkpoint_path(folder, state.step, part)
    header = json.dumps({"step": state.step, "normalisation": normalisation.kind, "cursor": cursor})
    save_tensors(path, {**state.tensors(), **normalisation.tensors()}, {"state": header})
    for old in checkpoints(folder, part)[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> tuple[TrainState, Normalisation, Cursor]:
    """Read a checkpoint: the state, the normalisation, and where in the data the next step begins.

    Raises:
        UserError: the file is damaged or no checkpoint.
    """
    tensors, metadata = load_tensors(path, _REMEDY, device)
    try:
        header = json.loads(metadata["state"])
        normalisation = Normalisation.from_tensors(tensors, header["normalisation"])
        return TrainState.from_tensors(tensors, int(header["step"])), normalisation, Cursor(*header["cursor"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a checkpoint of this program ({error!r}): {_REMEDY}.") from None
